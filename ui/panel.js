// Runs in the browser for the panel of sources: fills in the shares, and ties cards to the spans that cite them.
// Spans carry their turn and source in class names, since gradio's sanitizer drops data attributes from messages.
const root = element.closest('.mg-chat') || element;
const percent = share => Math.round(100 * share) + '%';
const number = (node, letter) => {
  for (const name of node.classList) {
    const found = name.match(new RegExp('^mg-' + letter + '([0-9]+)$'));
    if (found) return Number(found[1]);
  }
  return null;
};
let wanted = null;
let shares = {};  // of the reply that comes: see live.js
const cards = () => [...element.querySelectorAll('.mg-card')];
const paint = () => {
  const {turn, cited} = props.value;
  const weights = props.value.weights.length || shares.turn !== turn ? props.value.weights : shares.weights;
  cards().forEach((card, i) => {
    const share = weights.length ? weights[i] || 0 : null;
    card.querySelector('.mg-bar i').style.width = percent(share || 0);
    card.querySelector('.mg-share').textContent = share === null ? '' : percent(share);
    card.classList.toggle('mg-uncited', cited !== null && 'source' in card.dataset && !cited.includes(i + 1));
  });
  if (wanted !== null && wanted.turn === turn) { reveal(wanted.source); wanted = null; }
};
const light = (turn, source, on) => {
  root.querySelectorAll('.mg-cite.mg-t' + turn + '.mg-s' + source).forEach(n => n.classList.toggle('mg-lit', on));
  if (turn !== props.value.turn) return;
  const card = element.querySelector('[data-source="' + source + '"]');
  if (card) card.classList.toggle('mg-lit', on);
};
const reveal = source => {
  const card = element.querySelector('[data-source="' + source + '"]');
  if (!card) return;
  const more = card.querySelector('.mg-more');
  if (more && more.getAttribute('aria-expanded') === 'false') more.click();
  card.scrollIntoView({block: 'nearest', behavior: 'smooth'});
  card.classList.remove('mg-flash'); void card.offsetWidth; card.classList.add('mg-flash');
};
const look = (turn, source) => {
  if (source === null) element.scrollIntoView({block: 'nearest', behavior: 'smooth'});
  if (turn !== props.value.turn) { wanted = source === null ? null : {turn, source}; trigger('look', {turn}); }
  else if (source !== null) reveal(source);
};
const hover = on => event => {
  const cite = event.target.closest?.('.mg-cite'), card = event.target.closest?.('.mg-card[data-source]');
  if (cite) light(number(cite, 't'), number(cite, 's'), on);
  else if (card && element.contains(card)) light(props.value.turn, Number(card.dataset.source), on);
};
for (const [start, end] of [['pointerover', 'pointerout'], ['focusin', 'focusout']]) {
  root.addEventListener(start, hover(true));
  root.addEventListener(end, hover(false));
}
const copy = async button => {
  const reply = button.closest('.mg-message').querySelector('.mg-reply').cloneNode(true);
  reply.querySelectorAll('sup').forEach(sup => sup.remove());
  const text = reply.textContent, was = button.textContent;
  try { await navigator.clipboard.writeText(text); }
  catch {
    const box = document.createElement('textarea');
    box.value = text; document.body.append(box); box.select(); document.execCommand('copy'); box.remove();
  }
  button.textContent = props.copied;
  setTimeout(() => { button.textContent = was; }, 1200);
};
root.addEventListener('click', event => {
  const hit = name => event.target.closest?.(name);
  if (hit('.mg-cite')) look(number(hit('.mg-cite'), 't'), number(hit('.mg-cite'), 's'));
  else if (hit('.mg-look')) look(number(hit('.mg-look'), 't'), null);
  else if (hit('.mg-copy')) copy(hit('.mg-copy'));
  else if (hit('.mg-thumb')) {
    const thumb = hit('.mg-thumb');
    trigger('judge', {turn: number(thumb, 't'), rating: thumb.classList.contains('mg-up') ? 'up' : 'down'});
  }
  else if (hit('.mg-search')) {
    trigger('search', {typed: hit('.mg-search').classList.contains('mg-typed')});
  }
  else if (hit('.mg-in-place')) {
    trigger('place', {turn: props.value.turn, source: Number(hit('.mg-card').dataset.source)});
  }
  else if (hit('.mg-more')) {
    const button = hit('.mg-more'), open = button.getAttribute('aria-expanded') === 'false';
    button.setAttribute('aria-expanded', open);
    button.textContent = open ? button.dataset.less : button.dataset.more;
    button.closest('.mg-card').classList.toggle('mg-unfolded', open);
  }
});
root.addEventListener('keydown', event => {
  if ((event.key === 'Enter' || event.key === ' ') && event.target.matches?.('.mg-cite')) {
    event.preventDefault();
    event.target.click();
  }
});
const press = () => root.querySelectorAll('.mg-thumb').forEach(
  thumb => thumb.setAttribute('aria-pressed', thumb.classList.contains('mg-pressed')));  // the sanitizer drops it too
// gradio labels each message with its source, which is our HTML: without a label screen readers read the message itself
const labelled = () => root.querySelectorAll('.mg-messages [aria-label*="<div"]');
const unlabel = () => labelled().forEach(node => node.removeAttribute('aria-label'));
new MutationObserver(() => { unlabel(); press(); }).observe(root, {subtree: true, childList: true, attributeFilter: ['aria-label']});
unlabel();
press();
root.addEventListener('mg-shares', event => { shares = event.detail; paint(); });
watch('value', paint);
paint();
