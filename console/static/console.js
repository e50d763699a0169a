// Shows times in the browser's zone, copies commands, and says when the live page has lost its connection.
"use strict";

const format = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});

function parts(date) {
  const of = Object.fromEntries(format.formatToParts(date).map((part) => [part.type, part.value]));
  return `${of.year}-${of.month}-${of.day} ${of.hour}:${of.minute}:${of.second}`;
}

// As a heading says it: in the language of the page, with the day of the week. The day goes before the month.
const isChinese = document.documentElement.lang.startsWith("zh");
const dayFormat = new Intl.DateTimeFormat(isChinese ? "zh-CN" : "en-GB", {
  year: "numeric", month: isChinese ? "numeric" : "short", day: "numeric", weekday: "short",
  hour: "2-digit", minute: "2-digit", hourCycle: "h23",
});

function dayTime(date, pattern) {
  const of = Object.fromEntries(dayFormat.formatToParts(date).map((part) => [part.type, part.value]));
  return pattern.replace(/\{(\w+)\}/g, (_, name) => of[name]);
}

function localize(root) {
  for (const element of root.querySelectorAll("time[datetime]:not([data-local])")) {
    const date = new Date(element.dateTime);
    if (Number.isNaN(date.getTime())) continue;
    element.title = `${element.textContent} UTC`;
    element.textContent = element.dataset.day ? dayTime(date, element.dataset.day) : parts(date);
    element.dataset.local = "";
  }
  // A time of day on an axis, with as many digits as it has.
  for (const element of root.querySelectorAll("text[data-clock]")) {
    const date = new Date(element.dataset.clock);
    if (!Number.isNaN(date.getTime())) element.textContent = parts(date).slice(11, 11 + element.textContent.length);
  }
  for (const element of root.querySelectorAll("[data-zone]")) {
    element.hidden = !document.querySelector("time");
    element.textContent = element.dataset.zone.replace("ZONE", Intl.DateTimeFormat().resolvedOptions().timeZone || "");
  }
  // Dates that are typed into a form are meant in this zone: minutes east of UTC.
  for (const element of root.querySelectorAll("input[name=offset]")) {
    element.value = String(-new Date().getTimezoneOffset());
  }
}

function copyable(root) {
  if (!navigator.clipboard) return;
  for (const code of root.querySelectorAll("p.command code")) {
    code.addEventListener("click", () => navigator.clipboard.writeText(code.textContent));
  }
}

localize(document);
copyable(document);
// Where the pages do not fit beside each other, the one that is shown is among those that are seen.
document.querySelector(".pages [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
document.addEventListener("htmx:afterSwap", (event) => localize(event.target));
document.addEventListener("htmx:sseMessage", (event) => localize(event.target));

// A page that is live says so when it is not.
const live = document.querySelector("[data-live]");
if (live) {
  const say = (lost) => { live.hidden = !lost; };
  document.addEventListener("htmx:sseOpen", () => say(false));
  document.addEventListener("htmx:sseError", () => say(true));
  document.addEventListener("htmx:sseClose", () => say(true));
}
