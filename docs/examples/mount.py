import uvicorn
from fastapi import FastAPI

from chatbot import open_chatbot
from ui import mount

app = FastAPI()
mount(app, open_chatbot(), "/chat", names=["intranet.example.org"])

if __name__ == "__main__":
    uvicorn.run(app)
