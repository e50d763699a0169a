// Plays the files of a recording on one time line. The page has all elements and texts; see templates/_player.html.
"use strict";

// What can be said without a page: pure, and tried by the tests.
const timeline = (() => {
  const LARGE_FIRST = ["screen", "whiteboard", "mixed", "video", "camera", "audio"];
  // Further off than this, a stream jumps; nearer, it runs a little faster or slower, which nobody hears.
  const JUMP_S = 0.2;
  const NEAR_S = 0.03;
  const MOST = 0.12;

  function timeText(ms) {
    const seconds = Math.max(0, Math.floor(ms / 1000));
    const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
    const shown = parts[0] ? parts : parts.slice(1);
    return shown.map((part, index) => (index ? String(part).padStart(2, "0") : String(part))).join(":");
  }

  // Where `#t=125`, `#t=2:05` or `#t=1:02:05.5` leads, in milliseconds; null: nowhere.
  function momentOf(hash) {
    const found = /(?:^#|&)t=((?:\d{1,6}:){0,2}\d{1,9}(?:\.\d{1,6})?)(?:&|$)/.exec(hash);
    if (!found) return null;
    return Math.round(found[1].split(":").reduce((sum, part) => sum * 60 + Number(part), 0) * 1000);
  }

  // The end of a stream: Infinity while nobody knows it.
  function endOf(stream) {
    return stream.lengthMs === null ? Infinity : stream.startMs + stream.lengthMs;
  }

  // `reachedMs` is how far it was played: a stream of unknown length may go on behind all known ends.
  function totalOf(streams, toldMs, reachedMs = 0) {
    const known = streams.map(endOf).filter((end) => end !== Infinity);
    const isOpen = known.length < streams.length;
    const told = isOpen || !known.length ? [toldMs || 0, reachedMs] : [];
    return Math.max(1, ...known, ...told);
  }

  function activeAt(streams, ms) {
    return streams.filter((stream) => stream.isPlayable && stream.startMs <= ms && ms < endOf(stream));
  }

  // The stream that is shown large: what the reader chose, else what is worth most to be read.
  function largeOf(active, chosen) {
    const rank = (stream) => LARGE_FIRST.indexOf(stream.kind);
    const best = active.reduce((first, one) => (first && rank(first) <= rank(one) ? first : one), null);
    return active.find((stream) => stream.key === chosen) || best;
  }

  // The keys of those that are silent at first: their sound is in the mixed one, or in another file of the same person.
  function silentOf(streams) {
    const here = streams.filter((stream) => stream.isPlayable);
    const overlap = (one, other) => one.startMs < endOf(other) && other.startMs < endOf(one);
    const isDouble = (stream, place) => here.some((other, otherPlace) => other !== stream && overlap(stream, other) && (
      (other.kind === "mixed" && (stream.kind !== "mixed" || otherPlace < place))
      || (stream.kind === "audio" && other.kind !== "audio" && other.user && other.user === stream.user)
    ));
    return here.filter(isDouble).map((stream) => stream.key);
  }

  // In how many columns so many small ones stand beside the large one, so that all are seen.
  function columnsOf(small) {
    return [0, 4, 8, 15].filter((most) => small > most).length;
  }

  // What to do about a stream that is so far ahead of where it should be: jump, or run at another rate for a while.
  function correctionOf(aheadS, rate) {
    if (Math.abs(aheadS) > JUMP_S) return { jump: true, rate };
    if (Math.abs(aheadS) < NEAR_S) return { jump: false, rate };
    return { jump: false, rate: rate * (1 - Math.max(-MOST, Math.min(MOST, 2 * aheadS))) };
  }

  // The time of day, in milliseconds since 1970, at a place on the time line: what was left out has passed as well.
  function dayTimeOf(startedAtS, ms, omissions) {
    if (!startedAtS) return null;
    return omissions.reduce((sum, each) => sum + (each.atMs <= ms ? each.lengthMs || 0 : 0), startedAtS * 1000 + ms);
  }

  return { timeText, momentOf, endOf, totalOf, activeAt, largeOf, silentOf, columnsOf, correctionOf, dayTimeOf, MOST };
})();

// One player. `root` is the section of the template.
function startPlayer(root) {
  const { timeText, momentOf, endOf, totalOf, activeAt, largeOf, silentOf, columnsOf, correctionOf, dayTimeOf, MOST } = timeline;
  const one = (selector, from = root) => from.querySelector(selector);
  const all = (selector, from = root) => [...from.querySelectorAll(selector)];
  const text = (name) => root.dataset[`text${name[0].toUpperCase()}${name.slice(1)}`];
  const number = (value) => (value ? Number(value) : null);

  const SPACE = "http://www.w3.org/2000/svg";
  const TICK_MS = 100;
  // One that does not come shall not hold up the others for ever.
  const PATIENCE_MS = 15_000;
  const RETRIES_MS = [1_000, 3_000, 9_000];
  const SOON_MS = 10_000;
  // The time line of a stream of unknown length ends so far behind what was played of it.
  const MARGIN_MS = 2_000;

  const stage = one(".player-stage");
  const seek = one(".player-seek");
  const speed = one(".player-speed select");
  const speeds = [...speed.options].map((option) => Number(option.value));
  const clockFormat = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

  const omissions = all("[data-omitted-ms]").map((button) => (
    { button, atMs: Number(button.dataset.omittedMs), lengthMs: number(button.dataset.lengthMs) }
  ));
  const streams = all("[data-stream]").map((row) => {
    const tile = one(`[data-tile="${row.dataset.stream}"]`);
    const media = tile && one("video, audio", tile);
    return {
      key: row.dataset.stream, kind: row.dataset.kind, user: row.dataset.user, isArchived: "archived" in row.dataset,
      startMs: Number(row.dataset.startsMs), lengthMs: number(row.dataset.durationMs),
      name: one(".player-name", row).textContent, row, tile, media, isPlayable: Boolean(media),
      isMuted: false, jumpedAt: -Infinity, slowSince: null, isLeftBehind: false, failures: 0, wasThere: false,
    };
  });
  const playable = () => streams.filter((stream) => stream.isPlayable);
  const withMedia = streams.filter((stream) => stream.media);
  for (const key of silentOf(streams)) streams.find((stream) => stream.key === key).isMuted = true;

  let positionMs = 0;
  let totalMs = 1;
  let isPlaying = false;
  let isMuted = false;
  let volume = 1;
  let rate = 1;
  let chosen = null;
  let large = null;
  let said = "";
  let wasUsed = false;
  let tickedAt = performance.now();

  function show(element, content) {
    if (element.textContent !== content) element.textContent = content;
  }

  // Streams

  // Where there is something for the first time.
  function firstMs() {
    const starts = playable().map((stream) => stream.startMs);
    return starts.length ? Math.min(...starts) : 0;
  }

  // At the very end what was seen last stays.
  function activeNow() {
    return activeAt(streams, Math.min(positionMs, totalMs - 1));
  }

  function isWaiting(stream, now) {
    const { media } = stream;
    const isReady = media.ended || (!media.seeking && media.readyState >= HTMLMediaElement.HAVE_FUTURE_DATA)
      || positionMs > endOf(stream) - 300;
    if (isReady) {
      stream.slowSince = null;
      stream.isLeftBehind = false;
      return false;
    }
    stream.slowSince ??= now;
    stream.isLeftBehind = now - stream.slowSince > PATIENCE_MS;
    return !stream.isLeftBehind;
  }

  // Bring a stream where it should be.
  function follow(stream, runs, now) {
    const { media } = stream;
    if (media.preload !== "auto") media.preload = "auto";
    if (media.seeking || media.readyState === HTMLMediaElement.HAVE_NOTHING) return;
    const aheadS = media.currentTime - (positionMs - stream.startMs) / 1000;
    if (!runs) {
      if (!media.paused) media.pause();
      if (Math.abs(aheadS) > (isPlaying ? 0.2 : 0.05)) jump(stream, now);
      return;
    }
    if (media.ended && aheadS > -0.5) return;
    if (media.paused) {
      media.play().catch((error) => {
        if (error.name !== "NotAllowedError") return;
        setPlaying(false);
        said = text("blocked");
      });
    }
    const correction = correctionOf(aheadS, rate);
    // A seek takes a while: until it can have helped, a little haste does no harm.
    if (correction.jump && now - stream.jumpedAt > 1500) jump(stream, now);
    const wanted = correction.jump ? rate * (aheadS > 0 ? 1 - MOST : 1 + MOST) : correction.rate;
    if (Math.abs(media.playbackRate - wanted) > 0.001) media.playbackRate = wanted;
  }

  function jump(stream, now) {
    const toS = Math.max(0, (positionMs - stream.startMs) / 1000);
    stream.jumpedAt = now;
    // Behind its real end there is nothing, whatever was said of its length.
    stream.media.currentTime = Number.isFinite(stream.media.duration) ? Math.min(toS, stream.media.duration) : toS;
  }

  function learnLength(stream) {
    const { duration } = stream.media;
    if (!Number.isFinite(duration) || duration <= 0) return;
    stream.lengthMs = duration * 1000;
    drawLines();
  }

  function problem(stream, sentence) {
    const told = one(".player-problem", stream.row);
    show(told, sentence);
    told.hidden = !sentence;
  }

  // Why a file failed: of ours the console says it; of the vendor's a script may not ask.
  async function reasonOf(stream) {
    if (!stream.isArchived) return { sentence: text("vendor"), again: false };
    try {
      const { src } = stream.media;
      const head = await fetch(src, { method: "HEAD", redirect: "manual" });
      if (head.type === "opaqueredirect") return { sentence: text("login"), again: false };
      if (head.ok) {
        // It may have come back since it failed: what is there and fails once more is broken.
        const again = !stream.wasThere;
        stream.wasThere = true;
        return { sentence: text("broken"), again };
      }
      const answer = await fetch(src, { headers: { Accept: "application/json", Range: "bytes=0-0" } });
      const { error } = await answer.json();
      return { sentence: error, again: head.status === 503, isGone: head.status === 404 };
    } catch {
      return { sentence: text("network"), again: true };
    }
  }

  async function failed(stream) {
    const { media } = stream;
    const isLostOnTheWay = media.error && media.error.code === MediaError.MEDIA_ERR_NETWORK;
    const reason = isLostOnTheWay ? { sentence: text("network"), again: true } : await reasonOf(stream);
    const { sentence, again } = reason;
    if (again && stream.failures < RETRIES_MS.length) {
      problem(stream, sentence);
      setTimeout(() => media.load(), RETRIES_MS[stream.failures]);
      stream.failures += 1;
      return;
    }
    stream.isPlayable = false;
    one(".player-sound", stream.row).hidden = true;
    if (reason.isGone) one(".player-link", stream.row).hidden = true;
    problem(stream, again && isLostOnTheWay ? text("given") : sentence);
    stream.row.classList.add("failed");
    drawLines();
    tick();
  }

  // The clock

  function tick() {
    const now = performance.now();
    let active = activeNow();
    const awaited = isPlaying ? active.filter((stream) => isWaiting(stream, now)) : [];
    const runs = isPlaying && !awaited.length;
    if (runs) {
      const elapsedMs = now - tickedAt;
      const there = active.filter((stream) => !stream.isLeftBehind);
      const leader = largeOf(there.filter((stream) => !stream.media.paused), chosen) || largeOf(there, chosen);
      // After a long sleep of the page or the machine it is the stream that knows how far it has come.
      positionMs = elapsedMs > 5000 && leader
        ? leader.startMs + leader.media.currentTime * 1000
        : positionMs + elapsedMs * rate;
      active = activeNow();
    }
    tickedAt = now;
    if (active.some((stream) => stream.lengthMs === null) && positionMs > totalMs - MARGIN_MS / 2) drawLines();
    if (isPlaying && positionMs >= totalMs) {
      positionMs = totalMs;
      setPlaying(false);
    }
    for (const stream of withMedia) {
      if (active.includes(stream)) follow(stream, runs, now);
      else if (!stream.media.paused) stream.media.pause();
      // What begins soon is loaded by then.
      if (stream.isPlayable && stream.startMs > positionMs && stream.startMs < positionMs + SOON_MS) stream.media.preload = "auto";
    }
    draw(active, awaited);
  }

  function setPlaying(wanted) {
    if (wanted) {
      wasUsed = true;
      said = "";
      if (positionMs >= totalMs) positionMs = firstMs();
    }
    isPlaying = wanted;
    tickedAt = performance.now();
  }

  function goTo(ms) {
    positionMs = Math.max(0, Math.min(totalMs, ms));
    said = "";
    for (const stream of withMedia) stream.jumpedAt = -Infinity;
    tick();
  }

  function setRate(wanted) {
    rate = wanted;
    speed.value = String(rate);
  }

  function step(list, value, by) {
    return list[Math.max(0, Math.min(list.length - 1, list.indexOf(value) + by))];
  }

  // What is seen

  function draw(active, awaited) {
    // While there is nothing, what was large stays it: every stream has its place from the beginning to the end.
    large = largeOf(active, chosen) || large || largeOf(playable(), chosen) || withMedia[0];
    for (const stream of withMedia) {
      const isActive = active.includes(stream);
      const { classList } = stream.tile;
      classList.toggle("absent", !isActive);
      classList.toggle("large", stream === large);
      classList.toggle("waits", awaited.includes(stream));
      one(".player-enlarge", stream.tile).hidden = stream === large || !isActive;
      const isToCome = !isActive && stream.isPlayable && positionMs < stream.startMs;
      const begins = one(".player-begins", stream.tile);
      begins.hidden = !isToCome;
      show(begins, isToCome ? text("from").replace("ATTIME", timeText(stream.startMs)) : "");
      const isPast = !isActive && !isToCome;
      show(one(".player-past", stream.tile), !isPast ? "" : stream.isPlayable ? text("until").replace("ATTIME", timeText(endOf(stream))) : text("fails"));
    }
    const isOver = positionMs >= totalMs;
    const empty = one(".player-empty");
    empty.hidden = active.length > 0;
    show(empty, active.length ? "" : text(playable().length ? "nothing" : "unplayable"));
    // A short wait is no news, and a screen reader would read each.
    const waits = awaited.filter((stream) => performance.now() - stream.slowSince > 500).map((stream) => stream.name);
    const slow = active.filter((stream) => stream.isLeftBehind);
    for (const stream of withMedia) {
      if (stream.isPlayable && !stream.failures) problem(stream, slow.includes(stream) ? text("slow") : "");
    }
    const state = isOver && !isPlaying && !said ? text("ended") : said;
    show(one(".player-status"), waits.length ? text("waiting").replace("NAMES", () => waits.join(", ")) : state);
    root.dataset.state = !isPlaying ? (isOver ? "ended" : "paused") : awaited.length ? "waiting" : "playing";
    const play = one(".player-play");
    show(play, text(isPlaying ? "pause" : "play"));
    if (play.disabled === Boolean(playable().length)) play.disabled = !playable().length;
    const value = String(Math.round(positionMs));
    if (seek.value !== value) seek.value = value;
    const now = timeText(positionMs);
    show(one(".player-now"), now);
    seek.setAttribute("aria-valuetext", `${now} / ${timeText(totalMs)}`);
    const dayTime = dayTimeOf(number(root.dataset.startedS), positionMs, omissions);
    show(one(".player-clock"), dayTime === null || Math.abs(dayTime) > 8e15 ? "" : clockFormat.format(dayTime));
    const place = String((1000 * positionMs) / totalMs);
    for (const head of all("rect.now")) head.setAttribute("x", place);
  }

  function rectangle(line, name, fromMs, toMs, title = "") {
    const made = document.createElementNS(SPACE, "rect");
    const from = Math.max(0, Math.min(1000, (1000 * fromMs) / totalMs));
    const to = Math.max(from, Math.min(1000, (1000 * toMs) / totalMs));
    const values = { class: name, x: from, width: Math.max(3, to - from), y: 0, height: 10 };
    for (const [attribute, value] of Object.entries(values)) made.setAttribute(attribute, String(value));
    if (title) made.append(Object.assign(document.createElementNS(SPACE, "title"), { textContent: title }));
    line.append(made);
  }

  function drawLines() {
    totalMs = totalOf(streams, number(root.dataset.totalMs), positionMs + MARGIN_MS);
    positionMs = Math.min(positionMs, totalMs);
    seek.max = String(Math.ceil(totalMs));
    const isOpen = streams.some((stream) => stream.isPlayable && stream.lengthMs === null);
    show(one(".player-total"), `${timeText(totalMs)}${isOpen ? "+" : ""}`);
    for (const stream of streams) {
      const line = one("svg.player-line", stream.row);
      line.replaceChildren();
      rectangle(line, stream.isPlayable ? "there" : "missing", stream.startMs, Math.min(endOf(stream), totalMs));
      rectangle(line, "now", positionMs, positionMs);
    }
    const marks = one(".player-marks");
    marks.replaceChildren();
    for (const { atMs, button } of omissions) rectangle(marks, "left-out", atMs, atMs, button.textContent);
    for (const { startMs, name } of streams) {
      if (startMs > 0) rectangle(marks, "begins", startMs, startMs, `${name}: ${timeText(startMs)}`);
    }
  }

  function drawSound() {
    for (const stream of withMedia) {
      stream.media.muted = isMuted || stream.isMuted;
      stream.media.volume = volume * (Number(one(".player-volume", stream.row).value) / 100);
      one(".player-silence", stream.row).setAttribute("aria-pressed", String(stream.isMuted));
      stream.tile.classList.toggle("silent", stream.media.muted);
    }
    one(".player-mute").setAttribute("aria-pressed", String(isMuted));
  }

  // What is done

  function toggleMuted() {
    isMuted = !isMuted;
    drawSound();
  }

  function turn(by) {
    volume = Math.max(0, Math.min(1, Math.round((volume + by) * 10) / 10));
    isMuted = false;
    said = text("volume").replace("PERCENT", String(Math.round(volume * 100)));
    drawSound();
  }

  function toggleFull() {
    if (document.fullscreenElement) document.exitFullscreen();
    else root.requestFullscreen();
  }

  async function share() {
    const moment = timeText(positionMs);
    history.replaceState(history.state, "", `#t=${Math.floor(positionMs / 1000)}`);
    try {
      await navigator.clipboard.writeText(location.href);
      said = text("copied").replace("ATTIME", moment);
    } catch {
      // Only on a page that came safely, and if the browser asks and is allowed.
      said = text("linked").replace("ATTIME", moment);
    }
    tick();
  }

  function togglePlaying() {
    setPlaying(!isPlaying);
    tick();
  }

  const byKey = {
    " ": togglePlaying,
    k: togglePlaying,
    ArrowLeft: () => goTo(positionMs - 5_000),
    ArrowRight: () => goTo(positionMs + 5_000),
    ArrowUp: () => turn(0.1),
    ArrowDown: () => turn(-0.1),
    j: () => goTo(positionMs - 10_000),
    l: () => goTo(positionMs + 10_000),
    Home: () => goTo(0),
    End: () => goTo(totalMs),
    "<": () => setRate(step(speeds, rate, -1)),
    ">": () => setRate(step(speeds, rate, 1)),
    m: toggleMuted,
    f: toggleFull,
  };

  // Keys are the player's while it has the focus, and once it was used also while nothing has.
  function onKey(event) {
    const { target } = event;
    const isOurs = root.contains(target) || (wasUsed && target === document.body);
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (!isOurs || event.ctrlKey || event.altKey || event.metaKey || !Object.hasOwn(byKey, key)) return;
    const isPressed = key === " " && target.closest("button, a, summary, input:not(.player-seek)");
    const isTurned = target.matches("select, input:not(.player-seek)") && key.length > 1;
    if (isPressed || isTurned || (target.matches("select") && key.length === 1 && key !== " ")) return;
    event.preventDefault();
    wasUsed = true;
    byKey[key]();
  }

  one(".player-play").addEventListener("click", togglePlaying);
  one(".player-back").addEventListener("click", () => goTo(positionMs - 10_000));
  one(".player-on").addEventListener("click", () => goTo(positionMs + 10_000));
  one(".player-mute").addEventListener("click", toggleMuted);
  one(".player-share").addEventListener("click", share);
  one(".player-full").addEventListener("click", toggleFull);
  one(".player-full").hidden = !root.requestFullscreen;
  speed.addEventListener("change", () => setRate(Number(speed.value)));
  seek.addEventListener("input", () => goTo(Number(seek.value)));
  for (const line of all("svg.player-line")) {
    line.addEventListener("click", (event) => {
      const { left, width } = line.getBoundingClientRect();
      goTo((totalMs * (event.clientX - left)) / width);
    });
  }
  document.addEventListener("keydown", onKey);
  document.addEventListener("fullscreenchange", () => {
    show(one(".player-full .player-word"), text(document.fullscreenElement ? "leave" : "full"));
  });
  window.addEventListener("hashchange", () => {
    const moment = momentOf(location.hash);
    if (moment !== null) goTo(moment);
  });
  for (const { button, atMs } of omissions) button.addEventListener("click", () => goTo(atMs - 2_000));

  for (const stream of withMedia) {
    const { media, tile, row } = stream;
    media.controls = false;
    media.addEventListener("loadedmetadata", () => {
      if (stream.failures) problem(stream, "");
      stream.failures = 0;
      learnLength(stream);
    });
    media.addEventListener("durationchange", () => learnLength(stream));
    media.addEventListener("ended", () => {
      // Now the length of one is known that had none.
      if (stream.lengthMs !== null) return;
      stream.lengthMs = media.currentTime * 1000;
      drawLines();
    });
    media.addEventListener("error", () => failed(stream));
    tile.addEventListener("click", (event) => {
      const isButton = Boolean(event.target.closest("button"));
      if (tile.classList.contains("absent") && !isButton) return;
      if (tile.classList.contains("large") && !isButton) togglePlaying();
      chosen = stream.key;
      tick();
    });
    one(".player-begins", tile).addEventListener("click", () => goTo(stream.startMs));
    one(".player-sound", row).hidden = false;
    one(".player-silence", row).addEventListener("click", () => {
      stream.isMuted = !stream.isMuted;
      drawSound();
    });
    one(".player-volume", row).addEventListener("input", () => {
      stream.isMuted = false;
      drawSound();
    });
    // Of one whose length nobody said, the file says it.
    if (stream.lengthMs === null) media.preload = "metadata";
  }

  one(".player-panel").hidden = false;
  if (withMedia.length) stage.dataset.columns = String(columnsOf(withMedia.length - 1));
  drawLines();
  drawSound();
  goTo(momentOf(location.hash) ?? firstMs());
  setInterval(tick, TICK_MS);
}

if (typeof document !== "undefined") document.querySelectorAll("section.player").forEach(startPlayer);
