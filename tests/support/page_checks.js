// What is wrong with the page that is open, a sentence each: wider than the window, text that is cut off, too small, or on top of other text.
() => {
  const problems = [], width = document.documentElement.clientWidth;
  const quoted = (node) => `"${node.textContent.trim().slice(0, 60)}"`;
  const shown = (node) => node.checkVisibility() && node.getBoundingClientRect().width > 0;
  if (document.documentElement.scrollWidth > width) {
    const far = [...document.querySelectorAll("main *")].filter((node) => shown(node) && !node.parentElement.closest(".wide, svg") && node.getBoundingClientRect().right > width + 1);
    problems.push(`${document.documentElement.scrollWidth} pixels wide in a window of ${width}: ${far.slice(-3).map((node) => `${node.tagName}.${node.className} ${quoted(node)}`)}`);
  }
  for (const node of document.querySelectorAll("main *")) {
    const style = getComputedStyle(node);
    if (!node.closest("svg") && shown(node) && ["hidden", "clip"].includes(style.overflowX) && node.scrollWidth > node.clientWidth + 1 && node.textContent.trim()) {
      problems.push(`cut off: ${quoted(node)}`);
    }
    if (["TH", "TD"].includes(node.tagName) && shown(node) && node.scrollWidth > node.clientWidth + 1) problems.push(`runs over its cell: ${quoted(node)}`);
    if (["auto", "scroll"].includes(style.overflowX) && node.scrollWidth > node.clientWidth + 1 && !style.backgroundAttachment.includes("local")) {
      problems.push(`scrolls without a cue: ${node.tagName}.${node.className}`);
    }
  }
  for (const drawing of document.querySelectorAll("main svg")) {
    if (!shown(drawing)) continue;
    const matrix = drawing.getScreenCTM(), within = drawing.getBoundingClientRect(), frame = drawing.closest(".wide") ? within : { left: 0, right: width };
    const texts = [...drawing.querySelectorAll("text")].filter(shown);
    for (const text of texts) {
      const box = text.getBoundingClientRect(), size = parseFloat(getComputedStyle(text).fontSize) * matrix.a;
      if (box.left < frame.left - 2 || box.right > frame.right + 2 || box.top < within.top - 3 || box.bottom > within.bottom + 3) problems.push(`reaches out of its drawing: ${quoted(text)}`);
      if (drawing.closest(".chart, .shot") && size < 9) problems.push(`${size.toFixed(1)} pixels small: ${quoted(text)}`);
      if (text.textContent.includes("…")) problems.push(`cut: ${quoted(text)}`);
    }
    const level = texts.filter((text) => text.getScreenCTM().b === 0 && !text.closest(".shot")).map((text) => [text, text.getBoundingClientRect()]);
    level.forEach(([text, one], place) => level.slice(place + 1).forEach(([other, two]) => {
      const across = Math.min(one.right, two.right) - Math.max(one.left, two.left), down = Math.min(one.bottom, two.bottom) - Math.max(one.top, two.top);
      if (across > 1 && down > 4) problems.push(`on top of each other: ${quoted(text)} and ${quoted(other)}`);
    }));
  }
  return [...new Set(problems)];
}
