import gradio as gr

from chatbot import open_chatbot
from ui import RagChat

with gr.Blocks() as page:
    gr.Markdown("# Our help desk")
    RagChat(open_chatbot(), examples=["What can you tell me about leave?"])
page.launch()
