// The page of `invar serve`: a chat whose answers carry their digest and can be repeated in random company, and live metrics.
import { watchMetrics } from './metrics.js';

const $ = (id) => document.getElementById(id);
const history = [];  // what the chat has said so far: messages in OpenAI's form
let model = '';
let current = null;  // AbortController of the answer that is being written

const headers = () => {
  const key = $('key').value.trim();
  return { 'Content-Type': 'application/json', ...(key ? { Authorization: `Bearer ${key}` } : {}) };
};

// Yields the objects of a server-sent event stream; throws the server's message where it refuses.
async function* stream(path, body, signal) {
  const response = await fetch(path, { method: 'POST', headers: headers(), body: JSON.stringify({ ...body, stream: true }), signal });
  if (!response.ok) {
    const text = await response.text();
    let message = `${response.status} ${text}`;
    try { message = JSON.parse(text).error.message; } catch { /* not the API's own error */ }
    throw new Error(message);
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith('data: ') || line === 'data: [DONE]') continue;
      const chunk = JSON.parse(line.slice(6));
      if (chunk.error) throw new Error(chunk.error.message);
      yield chunk;
    }
  }
}

// The whole answer to a chat request: its text and digest.
async function answer(request, { signal, onText = () => {} } = {}) {
  let text = '', digest = '';
  for await (const chunk of stream('v1/chat/completions', request, signal)) {
    const piece = chunk.choices?.[0]?.delta?.content;
    if (piece) onText(text += piece);
    digest = chunk.choices?.[0]?.invar?.response_digest ?? chunk.invar?.response_digest ?? digest;
  }
  return { text, digest };
}

function addMessage(role, text) {
  const item = $('message').content.firstElementChild.cloneNode(true);
  item.classList.add(role);
  item.querySelector('.text').textContent = text;
  $('messages').append(item);
  item.scrollIntoView({ block: 'end' });
  return item;
}

const number = (id) => ($(id).value === '' ? undefined : Number($(id).value));

async function ask(prompt) {
  history.push({ role: 'user', content: prompt });
  addMessage('user', prompt);
  const item = addMessage('assistant', '…');
  const request = { model, messages: structuredClone(history), temperature: number('temperature'), seed: number('seed'),
    max_tokens: number('max_tokens') };
  current = new AbortController();
  $('send').disabled = true;
  $('stop').hidden = false;
  try {
    const { text, digest } = await answer(request, { signal: current.signal, onText: (t) => {
      item.querySelector('.text').textContent = t;
      item.scrollIntoView({ block: 'end' });
    } });
    item.querySelector('.text').textContent = text;
    history.push({ role: 'assistant', content: text });
    showProof(item, request, digest);
  } catch (error) {
    history.pop();
    item.classList.add('failed');
    item.querySelector('.text').textContent = current.signal.aborted ? 'Stopped.' : error.message;
  } finally {
    current = null;
    $('send').disabled = false;
    $('stop').hidden = true;
  }
}

function showProof(item, request, digest) {
  const proof = item.querySelector('.proof');
  proof.hidden = false;
  proof.querySelector('.digest').textContent = digest;
  proof.querySelector('.digest').title = 'head of the hash chain over every token and its logits';
  proof.querySelector('.repeat').addEventListener('click', (event) => repeat(event.target, proof, request, digest));
}

// The same request once more, at a random moment among requests that nobody asked for twice.
async function repeat(button, proof, request, digest) {
  const line = document.createElement('li');
  proof.querySelector('.repetitions').append(line);
  button.disabled = true;
  const company = number('company') ?? 0, stop = new AbortController();
  const pause = () => new Promise((wake) => setTimeout(wake, Math.random() * 300));
  const stranger = async () => {
    await pause();
    const words = Array.from({ length: 1 + Math.floor(Math.random() * 40) }, () => Math.random().toString(36).slice(2, 7)).join(' ');
    await answer({ model, messages: [{ role: 'user', content: words }], temperature: Math.random() * 1.5,
      max_tokens: 1 + Math.floor(Math.random() * 128) }, { signal: stop.signal }).catch(() => {});
  };
  line.textContent = `running beside ${company} others …`;
  const strangers = Array.from({ length: company }, stranger);
  try {
    await pause();
    const again = await answer(request);
    const equal = again.digest === digest && digest !== '';
    line.className = equal ? 'equal' : 'differs';
    line.textContent = `${equal ? '=' : '≠'} ${again.digest} beside ${company} others${equal ? '' : ': DIFFERS'}`;
  } catch (error) {
    line.className = 'differs';
    line.textContent = error.message;
  } finally {
    stop.abort();
    await Promise.allSettled(strangers);
    button.disabled = false;
  }
}

$('ask').addEventListener('submit', (event) => {
  event.preventDefault();
  const prompt = $('prompt').value.trim();
  if (!prompt || current) return;
  $('prompt').value = '';
  ask(prompt);
});
$('prompt').addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $('ask').requestSubmit();
});
$('stop').addEventListener('click', () => current?.abort());
$('clear').addEventListener('click', () => {
  if (current) return;
  history.length = 0;
  $('messages').replaceChildren();
});

async function introduce() {
  try {
    const models = await (await fetch('v1/models', { headers: headers() })).json();
    model = models.data[0].id;
    $('model').textContent = model;
    const { invar } = models.data[0];
    if (invar) $('identity').textContent = `${invar.numerics_id} · ${invar.model_digest.slice(0, 16)}`;
  } catch {
    $('model').textContent = 'no answer yet: the model loads, or an API key is wanted (below)';
    setTimeout(introduce, 2000);
  }
}
introduce();
watchMetrics(headers);
