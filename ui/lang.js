// Runs in the browser for the header: the page is in the language of its texts. gradio names the browser's instead.
const root = document.documentElement;
const name = () => {
  const {lang} = element.querySelector('[lang]');
  if (root.lang !== lang) root.lang = lang;
};
new MutationObserver(name).observe(root, {attributeFilter: ['lang']});
watch('value', name);
name();
