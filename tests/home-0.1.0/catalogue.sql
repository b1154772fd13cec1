CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, kind TEXT NOT NULL, bytes INTEGER NOT NULL,
    pages INTEGER, passages INTEGER NOT NULL, language TEXT NOT NULL, added TEXT NOT NULL,
    notice TEXT NOT NULL, collection TEXT NOT NULL REFERENCES collections (key),
    splitter TEXT NOT NULL, version INTEGER NOT NULL,
    UNIQUE (collection, name)
);
CREATE TABLE passages (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE, document_id TEXT NOT NULL REFERENCES documents (id),
        text TEXT NOT NULL, page INTEGER, heading TEXT NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL,
        fingerprint INTEGER
    );
CREATE INDEX passages_of_document ON passages (document_id);
CREATE VIRTUAL TABLE lexical USING fts5 (words, tokenize = 'ascii');
CREATE VIRTUAL TABLE vocabulary USING fts5vocab (lexical, row);
CREATE TABLE collections (key TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE) WITHOUT ROWID;
CREATE TABLE pages (
        document_id TEXT NOT NULL REFERENCES documents (id), place INTEGER NOT NULL, number INTEGER,
        text TEXT NOT NULL, PRIMARY KEY (document_id, place)
    );
CREATE INDEX passages_by_fingerprint ON passages (fingerprint);
INSERT INTO meta (key, value) VALUES ('embedder', '["hashing-256", "hashing"]');
INSERT INTO meta (key, value) VALUES ('identity', 'a6170a3cf4b5484ea5cced773d1f5103');
INSERT INTO documents (sequence, id, name, kind, bytes, pages, passages, language, added, notice, collection, splitter, version) VALUES (1, '4ca8ddf2bd78ed63', 'travel.pdf', 'pdf', 1410, 2, 2, 'en', '2026-11-27T08:29:17+00:00', '', '', '1 160 0 hashing-256', 0);
INSERT INTO documents (sequence, id, name, kind, bytes, pages, passages, language, added, notice, collection, splitter, version) VALUES (2, '5d918fd5c17ea031', 'manual.md', 'markdown', 74, NULL, 2, 'en', '2026-11-27T08:29:18+00:00', '', '', '1 160 0 hashing-256', 0);
INSERT INTO documents (sequence, id, name, kind, bytes, pages, passages, language, added, notice, collection, splitter, version) VALUES (3, '9f1b2c3f174b5921', 'notes.txt', 'text', 40, NULL, 1, 'en', '2026-11-27T08:29:19+00:00', '', 'b4128df29f37', '1 160 0 hashing-256', 0);
INSERT INTO passages (sequence, id, document_id, text, page, heading, start, end, fingerprint) VALUES (1, '4ca8ddf2bd78ed63:0', '4ca8ddf2bd78ed63', 'Contents of 1 Leave
1 Leave
Thirty days.
Unused days
They lapse.', 1, '', 0, 64, 4582780143049137796);
INSERT INTO passages (sequence, id, document_id, text, page, heading, start, end, fingerprint) VALUES (2, '4ca8ddf2bd78ed63:1', '4ca8ddf2bd78ed63', 'They do.', 2, 'Not on the page', 0, 8, -1466500421680447924);
INSERT INTO passages (sequence, id, document_id, text, page, heading, start, end, fingerprint) VALUES (3, '5d918fd5c17ea031:0', '5d918fd5c17ea031', '# Leave

There are thirty days of leave.', NULL, 'Leave', 0, 40, 5315374118875535382);
INSERT INTO passages (sequence, id, document_id, text, page, heading, start, end, fingerprint) VALUES (4, '5d918fd5c17ea031:1', '5d918fd5c17ea031', '# Travel

Trains are preferred.', NULL, 'Travel', 42, 73, 8764001493370519565);
INSERT INTO passages (sequence, id, document_id, text, page, heading, start, end, fingerprint) VALUES (5, '9f1b2c3f174b5921:0', '9f1b2c3f174b5921', 'The harbour master is called Ada Quayle.', NULL, '', 0, 40, -6369312307010327635);
INSERT INTO lexical (rowid, words) VALUES (1, 'travel content of 1 leav 1 leav thirti day unus day they laps');
INSERT INTO lexical (rowid, words) VALUES (2, 'travel not on the page they do');
INSERT INTO lexical (rowid, words) VALUES (3, 'manual leav leav there are thirti day of leav');
INSERT INTO lexical (rowid, words) VALUES (4, 'manual travel travel train are prefer');
INSERT INTO lexical (rowid, words) VALUES (5, 'note the harbour master is call ada quayl');
INSERT INTO collections (key, name) VALUES ('', 'default');
INSERT INTO collections (key, name) VALUES ('b4128df29f37', 'handbook');
INSERT INTO pages (document_id, place, number, text) VALUES ('4ca8ddf2bd78ed63', 0, 1, 'Contents of 1 Leave
1 Leave
Thirty days.
Unused days
They lapse.');
INSERT INTO pages (document_id, place, number, text) VALUES ('4ca8ddf2bd78ed63', 1, 2, 'They do.');
INSERT INTO pages (document_id, place, number, text) VALUES ('5d918fd5c17ea031', 0, NULL, '# Leave

There are thirty days of leave.

# Travel

Trains are preferred.
');
INSERT INTO pages (document_id, place, number, text) VALUES ('9f1b2c3f174b5921', 0, NULL, 'The harbour master is called Ada Quayle.');
PRAGMA application_id = 1298231911;
PRAGMA user_version = 2;
