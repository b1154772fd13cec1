// Runs in the browser for the reply that comes: puts what is new of it where it stands among the messages, which are
// drawn when it begins and when it ends and not in between. Gradio sends what is new of `value` alone.
const root = element.closest('.mg-chat') || element;
const QUIET_MS = 25000;  // without a word of a reply, of which some come every few seconds: it is asked for anew
let heard = Date.now();
const coming = () => root.querySelector('.mg-messages .mg-coming');
const caret = () => Object.assign(document.createElement('span'), {className: 'mg-caret'});
const put = (parent, place, html, name) => {
  let node = parent.querySelector(name);
  if (!node) { parent.insertAdjacentHTML(place, html); node = parent.querySelector(name); }
  return node;
};
const write = (message, {head, waiting, text}) => {
  if (head) put(message, 'afterbegin', head, '.mg-searched');
  if (!text) {
    const line = message.querySelector('.mg-waiting');
    if (line && line.textContent !== waiting) line.textContent = waiting;
    return;
  }
  message.querySelector('.mg-waiting')?.remove();
  const reply = put(message, 'beforeend', '<div class="mg-reply" dir="auto"></div>', '.mg-reply');
  if (reply.firstChild?.nodeType !== Node.TEXT_NODE) reply.replaceChildren(document.createTextNode(''), caret());
  const written = reply.firstChild;
  if (text.startsWith(written.data)) {
    if (text.length > written.data.length) written.appendData(text.slice(written.data.length));
  } else written.data = text;
};
const draw = () => {
  const message = coming(), value = props.value || {};
  if (!message || !value.run || !message.classList.contains('mg-r' + value.run)) return;
  const log = message.closest('[role=log]');
  const atEnd = log && log.scrollHeight - log.scrollTop - log.clientHeight < 100;
  write(message, value);
  if (atEnd) log.scrollTop = log.scrollHeight;
};
const told = () => {
  heard = Date.now();
  asked = false;
  fruitless = 0;
  if (props.value?.gone && coming()) giveUp(coming());
  draw();
  root.dispatchEvent(new CustomEvent('mg-shares', {detail: props.value}));
};
// A page whose stream has broken is asked for anew as soon as the server answers: gradio does so where it notices, and
// opens no other stream where it does not. One that would not find its conversation again stays: it asks how the reply
// goes on, and where nothing comes of that either, says so in the reply's place.
let lost = false, asked = false, fruitless = 0;
const remembers = () => {
  try { sessionStorage.setItem('marginalia-asks', '1'); sessionStorage.removeItem('marginalia-asks'); return true; }
  catch { return false; }
};
const giveUp = message => {
  message.querySelectorAll('.mg-caret, .mg-waiting').forEach(node => node.remove());
  put(message, 'beforeend', '<div class="mg-note"></div>', '.mg-note').textContent = props.disconnected;
  message.classList.replace('mg-coming', 'mg-broken-off');
};
const again = async () => {
  try { if (!(await fetch(location.href, {cache: 'no-store'})).ok) return; } catch { return; /* no server yet */ }
  if (props.kept && remembers()) { location.reload(); return; }
  heard = Date.now();
  lost = false;
  if (fruitless++ < 2) trigger('lost', {});
  else if (coming()) giveUp(coming());
};
const look = () => {
  const quiet = (Date.now() - heard) / QUIET_MS;
  if (!coming()) { heard = Date.now(); asked = lost = false; fruitless = 0; }
  else if (lost || quiet > 2) again();
  else if (quiet > 1 && !asked) { asked = true; trigger('lost', {}); }
};
setInterval(look, 1000);
window.addEventListener('marginalia-lost', () => { lost = true; });
// What is typed and was not asked yet is there again after a reload, since a page that found no server is loaded anew.
const typed = 'marginalia-typed-' + [...document.querySelectorAll('.mg-chat')].indexOf(root);
const box = () => root.querySelector('.mg-textbox textarea');
const fill = () => {
  if (!box()) { setTimeout(fill, 50); return; }
  let text = '';
  try { text = sessionStorage.getItem(typed) || ''; sessionStorage.removeItem(typed); } catch { /* it keeps nothing */ }
  if (!text || box().value) return;
  box().value = text;
  box().dispatchEvent(new Event('input', {bubbles: true}));
};
window.addEventListener('pagehide', () => {
  try { sessionStorage.setItem(typed, box()?.value || ''); } catch { /* nor this */ }
});
fill();
new MutationObserver(draw).observe(root, {subtree: true, childList: true});  // the messages were drawn anew
watch('value', told);
draw();
