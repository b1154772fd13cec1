// Runs in the browser beside panel.js, for who hears the page or uses the keyboard alone: says a reply once it is there,
// names what gradio leaves without a name, and closes the fields that unfold.
{
const root = element.closest('.mg-chat') || element;
const all = selector => [...root.querySelectorAll(selector)];

// gradio's log would read every redraw of a reply, with its buttons and the numbers of its sources: it is silent, and
// this line says the finished reply instead.
const said = document.createElement('div');
said.className = 'mg-said';
said.setAttribute('role', 'status');
root.append(said);
let coming = 0;  // how many replies there are with the one that streams; 0: none does
let told = 0;    // how many there were with the one that the line says
const say = () => {
  const replies = all('.mg-messages .mg-message'), last = replies[replies.length - 1];
  if (last?.querySelector('.mg-caret, .mg-waiting')) {
    coming = replies.length;
    if (said.textContent) said.textContent = '';
  } else if (coming) {
    if (replies.length === coming) { said.textContent = spoken(last); told = coming; }
    coming = 0;
  } else if (replies.length < told) {  // it was taken back, or a new chat begun
    said.textContent = '';
    told = 0;
  }
};
const spoken = reply => {
  const copy = reply.cloneNode(true);
  copy.querySelectorAll('sup').forEach(number => number.remove());
  return [...copy.querySelectorAll('.mg-notice, .mg-reply, .mg-note')].map(part => part.textContent.trim()).join(' ');
};

const set = (selector, name, value) => all(selector).forEach(node => {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
});
const drop = (selector, name) => all(selector + '[' + name + ']').forEach(node => node.removeAttribute(name));
const mend = () => {
  set('.mg-messages [role=log]', 'aria-live', 'off');
  set('.mg-messages [role=log]', 'aria-label', props.conversation);
  set('.mg-messages .examples', 'role', 'group');  // it was a list without items
  drop('.mg-messages .example', 'aria-label');     // "Select example 1: ...", in English
  drop('.mg-messages .placeholder-content', 'role');  // nor is the welcome aside from anything
  set('.mg-textbox .submit-button', 'aria-label', props.send);
  set('.mg-textbox .stop-button', 'aria-label', props.stop);
  set('.mg-scope > .label-wrap', 'aria-expanded', String(!!root.querySelector('.mg-scope > .label-wrap.open')));
  set('.mg-scope > .label-wrap .icon', 'aria-hidden', 'true');
};
const messages = () => {  // a message that comes up is a button which holds another: closing it is enough
  for (const header of document.querySelectorAll('.toast-header[role=button]')) {
    header.removeAttribute('role');
    header.removeAttribute('tabindex');
  }
};

// Escape leaves a field as it is; where it was opened has the focus again
let opener = '';
root.addEventListener('click', event => {
  const button = event.target.closest?.('.mg-down, .mg-search:not(.mg-typed)');
  if (button) opener = '.' + [...button.classList].filter(name => !/pressed/.test(name)).join('.');
}, true);
root.addEventListener('keydown', event => {
  if (event.key !== 'Escape' || event.isComposing || !event.target.closest?.('.mg-correcting')) return;
  trigger('leave', {});
  const buttons = opener ? all(opener) : [];
  (buttons[buttons.length - 1] || root.querySelector('.mg-textbox textarea'))?.focus();
});

const look = () => { mend(); say(); };
new MutationObserver(look).observe(root, {
  subtree: true, childList: true, characterData: true, attributeFilter: ['class', 'role', 'aria-label'],
});
new MutationObserver(messages).observe(document.body, {subtree: true, childList: true});
watch('value', mend);
look();
}
