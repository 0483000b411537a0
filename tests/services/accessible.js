// What is wrong with the page for people who see little, or use it by keyboard or on a phone.
(() => {
  const shown = (one) => one.getClientRects().length > 0;
  const wrong = [];
  for (const one of [...document.querySelectorAll('button, input, select, textarea, summary, dialog')].filter(shown)) {
    const by = one.getAttribute('aria-labelledby');
    const label = one.getAttribute('aria-label') ?? (by && document.getElementById(by)?.textContent)
      ?? one.labels?.[0]?.textContent ?? '';
    const own = one.matches('button, summary') ? one.textContent : '';
    if (!(label + own).trim()) wrong.push('no name: ' + one.outerHTML.slice(0, 100));
    const box = one.getBoundingClientRect();
    if (one.matches('button, select, input:not([type=checkbox])') && box.height < 24) wrong.push('small: ' + one.outerHTML.slice(0, 100));
  }
  const ids = [...document.querySelectorAll('[id]')].map((one) => one.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) wrong.push('twice: ' + id);
  const levels = [...document.querySelectorAll('h1, h2, h3')].filter(shown).map((one) => Number(one.tagName[1]));
  levels.forEach((level, index) => { if (index && level > levels[index - 1] + 1) wrong.push('heading h' + level) });
  if (document.documentElement.lang !== 'en') wrong.push('no language');
  for (const tag of ['main', 'header', 'footer', '[role=search]', '[role=status]'])
    if (!document.querySelector(tag)) wrong.push('no ' + tag);
  const rgb = (color) => color.match(/[\d.]+/g).map(Number);
  const light = (color) => rgb(color).slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const back = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (rgb(color)[3] !== 0) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  for (const one of [...document.querySelectorAll('body *')].filter(shown)) {
    if (![...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    const [a, b] = [light(getComputedStyle(one).color), light(back(one))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) wrong.push(ratio.toFixed(2) + ': ' + one.outerHTML.slice(0, 100));
  }
  for (const one of [...document.querySelectorAll('input, select, button')].filter(shown)) {
    const around = one.closest('[role=group], dialog, form') ?? document.body;
    if (one.getBoundingClientRect().right > around.getBoundingClientRect().right + 1)
      wrong.push('sticks out: ' + one.outerHTML.slice(0, 100));
  }
  if (document.documentElement.scrollWidth > innerWidth) wrong.push('wider than the window');
  return wrong;
})();
