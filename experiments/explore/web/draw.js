// Samples on a canvas: pictures as they are, rows of numbers as bars or lines.
const BLUE = "#0072B2", INK = "#1d2733", FAINT = "#c8d0d8";
const BARS = 24;

function loaded(address) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = reject;
    image.src = address;
  });
}

// A part of a picture over all of a canvas, with visible pixels where they are few.
function drawPicture(canvas, image, left, width) {
  const height = image.naturalHeight;
  canvas.width = width;
  canvas.height = height;
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, width, height);
  pen.drawImage(image, left, 0, width, height, 0, 0, width, height);
}

function drawRow(canvas, row, [low, high], { axes = true, start = null } = {}) {
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth || 144, height = canvas.clientHeight || 96;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.clearRect(0, 0, width, height);
  const bars = row.length <= BARS;
  if (bars) [low, high] = [Math.min(low, 0), Math.max(high, 0)];
  const left = axes ? 44 : 3, right = axes ? 16 : 3, top = axes ? 10 : 3, bottom = axes ? 24 : 3;
  const x = (i) => left + ((width - left - right) * (i + (bars ? 0.5 : 0))) / Math.max(row.length - (bars ? 0 : 1), 1);
  const y = (v) => height - bottom - ((height - top - bottom) * (v - low)) / (high - low);
  if (axes) {
    pen.fillStyle = "#5b6875";
    pen.strokeStyle = "#e3e8ec";
    pen.font = "11px system-ui, sans-serif";
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (let k = 0; k <= 4; k++) {
      const value = low + ((high - low) * k) / 4;
      pen.beginPath();
      pen.moveTo(left, y(value));
      pen.lineTo(width - right, y(value));
      pen.stroke();
      pen.fillText(short(value, 2), left - 6, y(value));
    }
    pen.textAlign = "center";
    const ticks = bars ? row.map((_, i) => i) : [0, 0.25, 0.5, 0.75, 1].map((s) => Math.round(s * (row.length - 1)));
    const each = Math.ceil((ticks.length * 22) / (width - left));
    ticks.forEach((i, k) => k % each === 0 && pen.fillText(String(i), x(i), height - 10));
  }
  if (low < 0 && high > 0) {
    pen.strokeStyle = "#8a96a1";
    pen.beginPath();
    pen.moveTo(left, y(0));
    pen.lineTo(width - right, y(0));
    pen.stroke();
  }
  const line = (values, colour, thick) => {
    pen.strokeStyle = colour;
    pen.lineWidth = thick;
    pen.beginPath();
    values.forEach((v, i) => (i ? pen.lineTo(x(i), y(v)) : pen.moveTo(x(i), y(v))));
    pen.stroke();
  };
  if (start && !bars) line(start, FAINT, 2);
  if (!bars) return line(row, BLUE, axes ? 2 : 1.2);
  const wide = (0.7 * (width - left - right)) / row.length;
  pen.fillStyle = BLUE;
  row.forEach((v, i) => pen.fillRect(x(i) - wide / 2, Math.min(y(v), y(0)), wide, Math.max(1, Math.abs(y(v) - y(0)))));
}
