"""OpenAI's own Python client against `invar serve`: what it sends must be understood, what it gets must parse into its types.

    openai_client.py BASE_URL API_KEY MODEL
"""

import asyncio
import json
import re
import sys

import openai

base_url, api_key, model = sys.argv[1:4]
client = openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=0, timeout=60)
greedy = dict(model=model, temperature=0, max_tokens=24)
messages = [{"role": "system", "content": "You tell stories."}, {"role": "user", "content": "Tell me one."}]
checks = 0


def check(condition, what):
    global checks
    checks += 1
    if not condition:
        sys.exit(f"FAILED: {what}")


def digest(answer):
    return answer.model_extra["invar"]["response_digest"]


def refused(kind, param, call):
    try:
        call()
    except kind as e:
        check(param is None or e.param == param, f"{kind.__name__} names {e.param}, not {param}: {e}")
        return e
    sys.exit(f"FAILED: {kind.__name__} about {param} was not raised")


# Models.
listed = client.models.list().data
check(listed[0].id == model and listed[0].object == "model", "models.list")
check(client.models.retrieve(model).id == model, "models.retrieve")

# Completions: text, lists, token ids, logprobs, echo, n, stop.
one = client.completions.create(prompt="once upon a time", **greedy)
check(one.object == "text_completion" and one.choices[0].text and one.choices[0].finish_reason in ("stop", "length"), "completion")
check(one.usage.total_tokens == one.usage.prompt_tokens + one.usage.completion_tokens, "usage")
check(one.system_fingerprint, "system_fingerprint")
again = client.completions.create(prompt="once upon a time", **greedy)
check(digest(again) == digest(one) and again.choices[0].text == one.choices[0].text, "the same request has the same digest")
check(digest(client.completions.create(prompt="call me", **greedy)) != digest(one), "another prompt has another digest")
many = client.completions.create(prompt=["once upon a time", "call me"], **greedy)
check([c.index for c in many.choices] == [0, 1] and many.choices[0].text == one.choices[0].text, "a list of prompts")
sampled = client.completions.create(model=model, prompt="call me", n=3, temperature=1, seed=7, max_tokens=8)
check(len(sampled.choices) == 3, "n = 3")
with_logprobs = client.completions.create(prompt="once upon a time", logprobs=2, echo=True, **greedy)
logprobs = with_logprobs.choices[0].logprobs
check(with_logprobs.choices[0].text.startswith("once upon a time"), "echo")
check(logprobs.token_logprobs[0] is None and len(logprobs.tokens) == len(logprobs.top_logprobs) == len(logprobs.text_offset), "logprobs")
check(all(lp <= 0 for lp in logprobs.token_logprobs[1:]), "log-probabilities are at most 0")

# Chat, with logprobs and parts.
chat = client.chat.completions.create(messages=messages, logprobs=True, top_logprobs=3, **greedy)
choice = chat.choices[0]
check(chat.object == "chat.completion" and choice.message.role == "assistant" and choice.message.content, "chat")
check(len(choice.logprobs.content) == chat.usage.completion_tokens, "a log-probability for each token")
check(all(len(t.top_logprobs) == 3 for t in choice.logprobs.content), "top_logprobs")
parts = [messages[0], {"role": "user", "content": [{"type": "text", "text": "Tell me one."}]}]
check(digest(client.chat.completions.create(messages=parts, **greedy)) == digest(chat), "content in parts")

# Streams say the same as whole answers.
text, last = "", None
for chunk in client.completions.create(prompt="once upon a time", stream=True, stream_options={"include_usage": True}, **greedy):
    last = chunk
    if chunk.choices:
        text += chunk.choices[0].text
check(text == one.choices[0].text and last.usage.completion_tokens == one.usage.completion_tokens, "a streamed completion")
check(digest(last) == digest(one), "the digest of a stream")
text, roles, finish = "", [], None
for chunk in client.chat.completions.create(messages=messages, stream=True, **greedy):
    delta = chunk.choices[0].delta
    roles += [delta.role] if delta.role else []
    text += delta.content or ""
    finish = chunk.choices[0].finish_reason or finish
    last = chunk
check(text == choice.message.content and roles == ["assistant"] and finish == choice.finish_reason, "a streamed chat")
check(digest(last) == digest(chat), "the digest of a streamed chat")
with client.completions.create(model=model, prompt="x", max_tokens=2000, stream=True, extra_body={"ignore_eos": True}) as stream:
    next(iter(stream))  # and hangs up

# Extras of vLLM and of ours, in extra_body.
extra = client.completions.create(prompt="once upon a time", extra_body={"top_k": 5, "min_p": 0.1, "ignore_eos": True, "invar": {"receipt": True}}, **greedy)
check(extra.model_extra["invar"]["receipt"]["response_digest"] == digest(extra), "a receipt")
raw = client.chat.completions.with_raw_response.create(messages=messages, extra_headers={"X-Request-Id": "judge-1"}, **greedy)
check(raw.headers["x-request-id"] == "judge-1" and raw.parse()._request_id == "judge-1", "request ids")

# Calls of tools: forced, by name, streamed.
tools = [{"type": "function", "function": {"name": "weather", "description": "the weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 6}, "unit": {"enum": ["c", "f"]}}, "required": ["city", "unit"]}}},
    {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}]
call = dict(model=model, messages=messages, tools=tools, temperature=1, seed=5, max_tokens=400)
one = client.chat.completions.create(tool_choice="required", parallel_tool_calls=False, **call).choices[0]
check(one.finish_reason == "tool_calls" and one.message.content is None and len(one.message.tool_calls) == 1, "a call that is required")
check(one.message.tool_calls[0].function.name in ("weather", "clock") and isinstance(json.loads(one.message.tool_calls[0].function.arguments), dict), "its arguments")
again = client.chat.completions.create(tool_choice="required", parallel_tool_calls=False, **call).choices[0]
check(again.message.tool_calls == one.message.tool_calls, "the same call and id again")
named = client.chat.completions.create(tool_choice={"type": "function", "function": {"name": "weather"}}, **call).choices[0]
arguments = json.loads(named.message.tool_calls[0].function.arguments)
check(named.finish_reason == "stop" and arguments["unit"] in ("c", "f") and len(arguments["city"]) <= 6, "a named function")
with client.beta.chat.completions.stream(tool_choice={"type": "function", "function": {"name": "weather"}}, **call) as stream:
    final = stream.get_final_completion().choices[0]
check(final.message.tool_calls[0].function.arguments == named.message.tool_calls[0].function.arguments
      and final.message.tool_calls[0].id == named.message.tool_calls[0].id, "a named function, streamed")
refused(openai.BadRequestError, "tools", lambda: client.chat.completions.create(**call))  # no --enable-auto-tool-choice
grammar = client.completions.create(model=model, prompt="x", temperature=1, seed=1, max_tokens=60,
                                    extra_body={"guided_grammar": 'root ::= "<" pair{1,3} ">"\npair ::= [a-z] [0-9]'}).choices[0]
check(grammar.finish_reason == "stop" and re.fullmatch("<([a-z][0-9]){1,3}>", grammar.text), f"a grammar: {grammar.text}")

# Errors are the client's own classes, with the field.
refused(openai.BadRequestError, "temperature", lambda: client.completions.create(model=model, prompt="x", temperature=-1))
refused(openai.BadRequestError, "messages", lambda: client.chat.completions.create(model=model, messages=[]))
refused(openai.BadRequestError, "best_of", lambda: client.completions.create(model=model, prompt="x", best_of=4))
refused(openai.BadRequestError, "tool_choice", lambda: client.chat.completions.create(model=model, messages=messages, tool_choice="required", tools=[]))
image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
refused(openai.BadRequestError, "messages[0].content[0].type", lambda: client.chat.completions.create(model=model, messages=image))
error = refused(openai.BadRequestError, "prompt", lambda: client.completions.create(model=model, prompt=[5] * 100000))
check(error.code == "context_length_exceeded", "the code of a prompt that is too long")
refused(openai.NotFoundError, "model", lambda: client.completions.create(model="no-such-model", prompt="x"))
refused(openai.NotFoundError, None, lambda: client.embeddings.create(model=model, input="x"))
stranger = openai.OpenAI(base_url=base_url, api_key="wrong", max_retries=0)
check(refused(openai.AuthenticationError, None, stranger.models.list).code == "invalid_api_key", "a wrong key")


# Sixty-four at once: each digest is that of the request alone.
async def together():
    asynchronous = openai.AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0, timeout=60)

    async def ask(seed):
        last = None
        async for chunk in await asynchronous.completions.create(model=model, prompt="once upon a time", seed=seed, max_tokens=16, stream=True):
            last = chunk
        return digest(last)

    return await asyncio.gather(*(ask(seed % 8) for seed in range(64)))


digests = asyncio.run(together())
check(all(digests[i] == digests[i % 8] for i in range(64)), "equal requests have equal digests, whatever runs beside them")
check(len(set(digests)) == 8, "other seeds have other digests")
check(digests[3] == digest(client.completions.create(model=model, prompt="once upon a time", seed=3, max_tokens=16)), "alone and in company")

print(f"openai {openai.__version__}: {checks} checks passed")
