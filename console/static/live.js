// A live page that nobody sees holds no connection: a browser has six for each server, and every open tab would take one.
"use strict";

const STOP_AFTER_MS = 10000;
const make = (address) => new EventSource(address);
let source = null;
let stopping = 0;

htmx.createEventSource = (address) => {
  source = make(address);
  return source;
};

function stop() {
  if (source) source.close();
  source = null;
}

function start() {
  if (source && source.readyState !== EventSource.CLOSED) return;
  const place = document.getElementById("live");
  const again = place.cloneNode(true);
  place.replaceWith(again);
  htmx.process(again);
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(stopping);
  if (document.hidden) stopping = setTimeout(stop, STOP_AFTER_MS);
  else start();
});
