// An element with its attributes, listeners and children.
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

let named = 0;

// A label with its control, which it names.
function labelled(text, control, attributes = {}) {
  control.id = control.id || `control-${named++}`;
  return h("div", { class: "field", ...attributes }, h("label", { for: control.id }, text), control);
}

function options(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, text]) => h("option", { value }, text)));
  select.value = chosen;
}

// A short number with a true minus sign.
function short(value, digits = 3) {
  if (!Number.isFinite(value)) return "∞";
  const text = String(Number(value.toPrecision(digits)));
  return text.replace("-", "−");
}

function signed(value, digits = 3) {
  const rounded = Number(value.toPrecision(digits));
  return (rounded > 0 ? "+" : "") + short(rounded, digits);
}

// Called once it has been quiet for so many milliseconds.
function settled(milliseconds, call) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...given), milliseconds);
  };
}
