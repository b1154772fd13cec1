// Runs in the browser for a source in its document: a dialog over the page, which opens at the passage.
let before = null;  // where its reader was, while more of the text comes
const dialog = () => element.querySelector('dialog');
const show = () => {
  if (!dialog()) return;
  dialog().showModal();
  const text = element.querySelector('.mg-page');
  if (!text) return;
  if (before) text.scrollTop = before.top + (before.above ? text.scrollHeight - before.height : 0);
  else text.querySelector('mark').scrollIntoView({block: 'center'});
  before = null;
};
element.addEventListener('click', event => {
  const further = event.target.closest('.mg-further');
  if (further) {
    const text = element.querySelector('.mg-page'), {turn, source, first, last, above} = further.dataset;
    before = {above: above === '1', height: text.scrollHeight, top: text.scrollTop};
    trigger('further', {turn: Number(turn), source: Number(source), first: Number(first), last: Number(last)});
  } else if (event.target === dialog() || event.target.closest('.mg-close')) dialog().close();
});
element.addEventListener('close', () => { props.value = {html: ''}; }, true);  // so that the same one can be opened again
watch('value', show);
