// Runs in the browser for rows that can be opened, renamed and removed.
// Deleting takes two clicks on the same button: the first asks, and is forgotten after a while or when focus leaves.
const disarm = button => {
  if (!button.classList.contains('mg-armed')) return;
  button.classList.remove('mg-armed');
  button.textContent = button.dataset.was;
};
const field = button => {
  const input = document.createElement('input');
  input.className = 'mg-field'; input.value = button.dataset.key; input.setAttribute('aria-label', button.textContent);
  const leave = () => { if (input.isConnected) input.replaceWith(button); };
  input.addEventListener('blur', leave);
  input.addEventListener('keydown', event => {
    if (event.key === 'Escape') leave();
    if (event.key !== 'Enter' || event.isComposing) return;
    trigger('rename', {key: button.dataset.key, name: input.value});
    leave();
  });
  button.replaceWith(input);
  input.select();
};
element.addEventListener('click', event => {
  const open = event.target.closest('.mg-open'), button = event.target.closest('.mg-delete');
  const rename = event.target.closest('.mg-rename');
  if (open) trigger('open', {key: open.dataset.key});
  if (rename) field(rename);
  if (!button) return;
  if (button.classList.contains('mg-armed')) { disarm(button); trigger('remove', {key: button.dataset.key}); return; }
  button.classList.add('mg-armed');
  button.dataset.was = button.textContent;
  button.textContent = button.dataset.sure;
  setTimeout(() => disarm(button), 5000);
});
element.addEventListener('focusout', event => { if (event.target.matches('.mg-delete')) disarm(event.target); });
