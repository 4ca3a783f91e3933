// What a designer would complain about, found by measuring: things outside the screen, cut or tiny text, targets too
// small for a finger, too little contrast. Gives a list of complaints.
() => {
  const complaints = [];
  const centimetre = parseFloat(getComputedStyle(document.documentElement).fontSize);
  const scrolls = ".list, .details, .letter .text, .instruction";
  const name = (element) => `${element.tagName}.${element.getAttribute("class") ?? ""} "${element.textContent.slice(0, 30)}"`;

  const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const colour = (text) => (text.match(/[\d.]+/g) ?? []).map(Number);
  function ground(element) {
    for (let at = element; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      if (style.backgroundImage !== "none") return null; // a gradient: judged by eye
      const [r, g, b, alpha = 1] = colour(style.backgroundColor);
      if (alpha > 0.8) return [r, g, b];
    }
    return [255, 255, 255];
  }

  for (const element of document.querySelectorAll("#root *:not(svg *)")) {
    const box = element.getBoundingClientRect();
    const style = getComputedStyle(element);
    if (!box.width || !box.height || style.visibility === "hidden") continue;
    const outside = box.left < -1 || box.top < -1 || box.right > innerWidth + 1 || box.bottom > innerHeight + 1;
    if (outside && !element.closest(`.picture, .unseen, ${scrolls}`)) complaints.push(`outside: ${name(element)}`);
    if (element.tagName === "BUTTON" && !element.closest(scrolls)) {
      const side = Math.min(box.width, box.height) / centimetre;
      if (side < 1.19) complaints.push(`small target (${(side * 10).toFixed(1)} mm): ${name(element)}`);
    }
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!own) continue;
    const size = parseFloat(style.fontSize) / centimetre;
    if (size < 0.295) complaints.push(`tiny text (${(size * 10).toFixed(1)} mm): ${name(element)}`);
    if (style.display !== "inline" && !element.closest(scrolls)) {
      const cut = element.scrollWidth > element.clientWidth + 2 || element.scrollHeight > element.clientHeight + 4;
      if (cut && element.clientWidth) complaints.push(`cut: ${name(element)}`);
    }
    const behind = ground(element);
    if (behind && !element.closest("button:disabled")) {
      const [one, other] = [luminance(colour(style.color)), luminance(behind)].sort((a, b) => b - a);
      const contrast = (one + 0.05) / (other + 0.05);
      if (contrast < 4.5) complaints.push(`contrast ${contrast.toFixed(1)}: ${name(element)}`);
    }
  }
  const buttons = [...document.querySelectorAll("#root button")].filter((button) => !button.closest(scrolls));
  buttons.forEach((one, index) => {
    for (const other of buttons.slice(index + 1)) {
      if (one.contains(other) || other.contains(one) || one.parentElement.contains(other) && one.closest(".thumb")) continue;
      const [a, b] = [one.getBoundingClientRect(), other.getBoundingClientRect()];
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (across > 2 && down > 2) complaints.push(`overlap: ${name(one)} and ${name(other)}`);
    }
  });
  return complaints;
}
