CREATE TABLE files (
    place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, batch TEXT NOT NULL, owner TEXT NOT NULL,
    name TEXT NOT NULL, bytes INTEGER NOT NULL, choice TEXT NOT NULL, state TEXT NOT NULL, message TEXT NOT NULL,
    passages INTEGER NOT NULL
, collection TEXT NOT NULL DEFAULT 'default', address TEXT NOT NULL DEFAULT '');
INSERT INTO files (place, id, batch, owner, name, bytes, choice, state, message, passages, collection, address) VALUES (1, '819145783d524974ab0398f034f22748', 'a213a73ae9ab4dd985329d45c3e78c40', 'me', 'manual.md', 40, '', 'asking', '''manual.md'' is there already, with other content: replace it, keep both, or give another name', 0, 'default', '');
INSERT INTO files (place, id, batch, owner, name, bytes, choice, state, message, passages, collection, address) VALUES (2, '6517ae8afc354b9a8c52a61fecc6e723', '8cee3cca63c34d328d7225f76c11b5fb', 'you', 'later.md', 22, '', 'waiting', '', 0, 'handbook', '');
