// Live metrics: /metrics once a second, four numbers and their last two minutes.

const kKept = 120;

// Sum of a metric's samples over its labels, or undefined.
function total(text, name) {
  let sum;
  for (const line of text.split('\n')) {
    if (!line.startsWith(name) || !/[ {]/.test(line[name.length] ?? '')) continue;
    sum = (sum ?? 0) + Number(line.slice(line.lastIndexOf(' ') + 1));
  }
  return sum;
}

function plot(canvas, values, top) {
  const scale = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const draw = canvas.getContext('2d');
  draw.scale(scale, scale);
  draw.strokeStyle = getComputedStyle(canvas).color;
  draw.lineWidth = 1.5;
  draw.beginPath();
  values.forEach((value, i) => {
    const x = width * (kKept - values.length + i) / (kKept - 1), y = height - 2 - (height - 4) * (value / (top || 1));
    if (i === 0) draw.moveTo(x, y);
    else draw.lineTo(x, y);
  });
  draw.stroke();
}

export function watchMetrics(headers) {
  const $ = (id) => document.getElementById(id);
  const kept = { rate: [], running: [], waiting: [], cache: [] };
  let before = null;
  const show = (id, value, text, top) => {
    kept[id].push(value);
    if (kept[id].length > kKept) kept[id].shift();
    $(id).value = text;
    plot($(`${id}-plot`), kept[id], top ?? Math.max(...kept[id], 1));
  };
  const look = async () => {
    const trouble = $('trouble');
    try {
      const response = await fetch('metrics', { headers: headers() });
      if (!response.ok) throw new Error(`metrics: ${response.status}`);
      const text = await response.text();
      const now = { at: performance.now(), tokens: total(text, 'invar_generation_tokens_total') ?? 0 };
      const rate = before ? Math.max(0, now.tokens - before.tokens) / (now.at - before.at) * 1000 : 0;
      before = now;
      const running = total(text, 'invar_num_requests_running') ?? 0, waiting = total(text, 'invar_num_requests_waiting') ?? 0;
      const cache = total(text, 'invar_kv_cache_usage_perc') ?? 0;
      show('rate', rate, rate.toFixed(0));
      show('running', running, running);
      show('waiting', waiting, waiting);
      show('cache', cache, `${(100 * cache).toFixed(1)} %`, 1);
      trouble.hidden = true;
    } catch (error) {
      trouble.hidden = false;
      trouble.textContent = `no metrics: ${error.message}`;
    }
    setTimeout(look, document.hidden ? 5000 : 1000);
  };
  look();
}
