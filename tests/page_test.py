#!/usr/bin/env python3
"""The page of `invar serve` in headless Chromium: a chat that streams, its digest, a repetition in random company, live metrics.

  page_test.py http://localhost:8000      (Debian: chromium chromium-driver python3-selenium)
"""
import json
import re
import sys
import traceback
import urllib.request

from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

url = sys.argv[1].rstrip("/")
options = webdriver.ChromeOptions()
for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,900"):
    options.add_argument(flag)
options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
options.binary_location = "/usr/bin/chromium"
driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
wait = WebDriverWait(driver, 30, poll_frequency=0.05)
element = lambda css: driver.find_element(By.CSS_SELECTOR, css)
text = lambda css: element(css).text


def check(condition, message):
    if not condition:
        print(f"FAILED: {message}")
        print(f"page: {driver.find_element(By.TAG_NAME, 'body').text[:1500]}")
        sys.exit(1)


def answer(request):
    body = json.dumps(request).encode()
    with urllib.request.urlopen(urllib.request.Request(url + "/v1/chat/completions", body, {"Content-Type": "application/json"})) as r:
        return json.load(r)


def long_stream():
    body = json.dumps({"messages": [{"role": "user", "content": "hold on"}], "max_tokens": 3500, "ignore_eos": True, "stream": True}).encode()
    stream = urllib.request.urlopen(urllib.request.Request(url + "/v1/chat/completions", body, {"Content-Type": "application/json"}))
    stream.readline()
    return stream


try:
    driver.get(url + "/")
    wait.until(lambda _: text("#model") not in ("", "…") and "no answer" not in text("#model"))
    driver.execute_script("document.querySelector('details').open = true")
    for name, value in (("temperature", "0.9"), ("seed", "11"), ("max_tokens", "200"), ("company", "8")):
        field = element(f"#{name}")
        field.clear()
        field.send_keys(value)

    # Streaming: the answer is seen growing before its digest is there.
    driver.execute_script("""
      window.lengths = new Set();
      new MutationObserver(() => {
        const item = document.querySelector('#messages > li:nth-child(2)');
        if (item && item.querySelector('.proof').hidden) window.lengths.add(item.querySelector('.text').textContent.length);
      }).observe(document.getElementById('messages'), {subtree: true, childList: true, characterData: true});""")
    element("#prompt").send_keys("tell me a story", Keys.ENTER)
    wait.until(lambda _: driver.find_elements(By.CSS_SELECTOR, "#messages > li:nth-child(2) .proof:not([hidden])"))
    lengths = driver.execute_script("return [...window.lengths]")
    check(len(lengths) > 2, f"the answer did not grow while it was written: lengths {lengths}")
    digest = text("#messages > li:nth-child(2) .digest")
    check(re.fullmatch("[0-9a-f]{64}", digest), f"digest: {digest!r}")

    # It is the digest of the same request sent from elsewhere.
    elsewhere = answer({"messages": [{"role": "user", "content": "tell me a story"}], "temperature": 0.9, "seed": 11, "max_tokens": 200})
    check(elsewhere["choices"][0]["message"]["content"].strip() == text("#messages > li:nth-child(2) .text").strip(),
          "the page shows another text than the API gives")
    check(digest in json.dumps(elsewhere), "the page shows another digest than the API gives")

    # Repeated in random company: equal, twice.
    for times in (1, 2):
        wait.until(lambda _: element("#messages > li:nth-child(2) .repeat").is_enabled())
        element("#messages > li:nth-child(2) .repeat").click()
        wait.until(lambda _: len(driver.find_elements(By.CSS_SELECTOR, ".repetitions .equal, .repetitions .differs")) == times)
    check(len(driver.find_elements(By.CSS_SELECTOR, ".repetitions .equal")) == 2, "a repetition differs")
    check(digest in text(".repetitions .equal"), "the repetition's digest is not shown")

    # Another seed is another answer: equality above says something.
    element("#seed").clear()
    element("#seed").send_keys("12")
    element("#clear").click()
    element("#prompt").send_keys("tell me a story", Keys.ENTER)
    wait.until(lambda _: text("#messages > li:nth-child(2) .digest") != "" if len(
        driver.find_elements(By.CSS_SELECTOR, "#messages > li")) == 2 else False)
    check(text("#messages > li:nth-child(2) .digest") != digest, "another seed gives the same digest")

    # Metrics move; a request in progress is seen, then gone.
    wait.until(lambda _: text("#running") == "0")
    others = [long_stream() for _ in range(12)]  # so that the page's own answer takes its time
    element("#max_tokens").clear()
    element("#max_tokens").send_keys("1500")
    element("#prompt").send_keys("and then", Keys.ENTER)
    wait.until(lambda _: text("#running") not in ("–", "0"))
    wait.until(lambda _: float(text("#rate")) > 0)
    for stream in others:
        stream.close()
    wait.until(lambda _: text("#running") == "0")  # closed streams give their pages back

    # Stopped: the answer ends there. The page takes a prompt once it has shown the answer before to its end, which on a busy machine
    # is later than the server's count of running requests.
    wait.until(lambda _: not element("#stop").is_displayed())
    others = [long_stream() for _ in range(12)]
    # Clicked in the page, when the answer's first words are there: on a busy machine the answer may be at its end by the time that a
    # click from here arrives.
    driver.execute_script("""
      new MutationObserver((_, observer) => {
        const words = document.querySelector('#messages > li.assistant:last-child .text')?.textContent ?? '…';
        if (words === '…' || document.getElementById('stop').hidden) return;
        observer.disconnect();
        document.getElementById('stop').click();
      }).observe(document.getElementById('messages'), {subtree: true, childList: true, characterData: true});""")
    element("#prompt").send_keys("and then", Keys.ENTER)
    wait.until(lambda _: text("#messages > li:last-child .text") == "Stopped.")
    for stream in others:
        stream.close()

    # A refused request shows the server's words, and the chat lives on.
    element("#temperature").clear()
    element("#temperature").send_keys("-1")
    element("#prompt").send_keys("too cold", Keys.ENTER)
    wait.until(lambda _: "temperature" in text("#messages > li:last-child .text"))
    check("failed" in element("#messages > li:last-child").get_attribute("class"), "the refusal is not marked")
    severe = [e["message"] for e in driver.get_log("browser") if e["level"] == "SEVERE" and "status of 4" not in e["message"]]
    check(not severe, f"errors in the console: {severe}")
    print("the page streams, shows its digest, repeats it in company, and its metrics move")
except TimeoutException:
    traceback.print_exc()
    check(False, "the page did not get there")
finally:
    driver.quit()
