
"use strict";

// What can be said without a page: pure, and tried by the tests.

const LARGE_FIRST = ["screen", "whiteboard", "mixed", "video", "camera", "audio"];
// Further off than this, a stream jumps; nearer, it runs a little faster or slower, which nobody hears.
const JUMP_S = 0.2;
const NEAR_S = 0.03;
const MOST = 0.12;

const TEXTS = {
  en: {
    recording: "Recording", room: "Room", application: "Application", task: "Task", play: "Play", pause: "Pause",
    speed: "Speed", mute: "Sound off", unmute: "Sound on", full: "Full screen", leave: "Leave full screen", other: "中文",
    enlarge: "Enlarge", position: "Position", loading: "Loading…", nothing: "Nothing was recorded at this time.",
    empty: "No file of this recording is here.", ended: "The end.", files: "Files", file: "File", shows: "Shows",
    person: "Person", size: "Size", begins: "Begins", length: "Length", state: "State", archived: "archived",
    lost: "lost", refused: "refused", failed: "cannot be played here", vendorError: "The recording failed",
    missing: "These files are not here:", omitted: "Left out, because the recording was paused:", for: "at {at}, for {length}", unknown: "?",
    camera: "Camera", screen: "Screen", whiteboard: "Whiteboard", mixed: "Mixed", audio: "Sound", video: "Video",
    blocked: "The browser does not let it play: press Play once more.",
    keys: "Keys: Space plays and pauses, ← and → jump 5 s, J and L 30 s, Home and End, < and > change the speed, M the sound, F the full screen.",
  },
  zh: {
    recording: "录制", room: "房间", application: "应用", task: "任务", play: "播放", pause: "暂停",
    speed: "倍速", mute: "静音", unmute: "取消静音", full: "全屏", leave: "退出全屏", other: "English",
    enlarge: "放大", position: "播放位置", loading: "加载中…", nothing: "此时间段没有录制内容。",
    empty: "此录制没有可播放的文件。", ended: "播放结束。", files: "文件", file: "文件名", shows: "内容",
    person: "用户", size: "大小", begins: "开始", length: "时长", state: "状态", archived: "已归档",
    lost: "已丢失", refused: "已拒绝", failed: "无法在此播放", vendorError: "录制失败",
    missing: "以下文件不在此处：", omitted: "录制暂停期间未录制：", for: "{at} 处，时长 {length}", unknown: "未知",
    camera: "摄像头", screen: "屏幕共享", whiteboard: "白板", mixed: "混流", audio: "音频", video: "视频",
    blocked: "浏览器阻止了播放：请再次点击播放。",
    keys: "快捷键：空格 播放/暂停，← → 跳转 5 秒，J L 跳转 30 秒，Home End 首尾，< > 倍速，M 静音，F 全屏。",
  },
};

function languageOf(wanted) {
  return /^zh\b/i.test(wanted || "") ? "zh" : "en";
}

function timeText(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const shown = parts[0] ? parts : parts.slice(1);
  return shown.map((part, index) => (index ? String(part).padStart(2, "0") : String(part))).join(":");
}

function sizeText(bytes) {
  if (bytes === null) return "";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; bytes >= 1000 && unit < units.length - 1; unit += 1) bytes /= 1000;
  return `${unit && bytes < 10 ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}

// A name beside this page, and nothing else.
function addressOf(name) {
  return `./${encodeURIComponent(name)}`;
}

function streamsOf(files) {
  return files.map((file, index) => ({
    index, name: file.name, kind: file.kind, user: file.user_id, outcome: file.outcome, reason: file.reason,
    size: file.size, startMs: Math.max(0, file.starts_at_ms || 0), lengthMs: file.duration_ms || null,
    isHere: file.outcome === "archived", isBroken: false,
  }));
}

function endOf(stream) {
  return stream.lengthMs === null ? Infinity : stream.startMs + stream.lengthMs;
}

function totalOf(streams, toldMs) {
  const ends = streams.map(endOf).filter((end) => end !== Infinity);
  return Math.max(1, ...(ends.length ? ends : [toldMs || 0]));
}

function activeAt(streams, ms) {
  return streams.filter((stream) => stream.isHere && !stream.isBroken && stream.startMs <= ms && ms < endOf(stream));
}

// The stream that is shown large: what the user chose, else what is worth most to be read.
function largeOf(active, chosen) {
  const found = active.find((stream) => stream.index === chosen);
  const rank = (stream) => LARGE_FIRST.indexOf(stream.kind);
  return found || active.reduce((best, one) => (best && rank(best) <= rank(one) ? best : one), null);
}

// Who is silent at first: whose sound is in the mix as well, or in another file of the same person.
function silentOf(streams) {
  const here = streams.filter((stream) => stream.isHere);
  const overlap = (one, other) => one.startMs < endOf(other) && other.startMs < endOf(one);
  const isDouble = (stream) => here.some((other) => other !== stream && overlap(stream, other) && (
    (other.kind === "mixed" && (stream.kind !== "mixed" || other.index < stream.index))
    || (stream.kind === "audio" && other.kind !== "audio" && other.user && other.user === stream.user)
  ));
  return here.filter(isDouble).map((stream) => stream.index);
}

// What to do about a stream that is so far ahead of where it should be.
function correctionOf(aheadS, rate) {
  if (Math.abs(aheadS) > JUMP_S) return { jump: true, rate };
  if (Math.abs(aheadS) < NEAR_S) return { jump: false, rate };
  return { jump: false, rate: rate * (1 - Math.max(-MOST, Math.min(MOST, 2 * aheadS))) };
}

function omissionsOf(omitted) {
  return omitted
    .filter((each) => each.video_time_ms !== null)
    .map((each) => {
      const known = each.pause_time_ms !== null && each.resume_time_ms !== null;
      const lengthMs = known ? each.resume_time_ms - each.pause_time_ms : null;
      return { atMs: each.video_time_ms, lengthMs: lengthMs !== null && lengthMs >= 0 ? lengthMs : null };
    })
    .sort((one, other) => one.atMs - other.atMs);
}

// The time of day, in milliseconds since 1970, at a place on the time line.
function dayTimeOf(startedAtS, ms, omissions) {
  if (!startedAtS) return null;
  const before = omissions.filter((each) => each.atMs <= ms).reduce((sum, each) => sum + (each.lengthMs || 0), 0);
  return startedAtS * 1000 + ms + before;
}

// The page.

function start(recording) {
  const byId = (id) => document.getElementById(id);
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  // Drawn, because not every system has a font with these.
  const icon = (...paths) => {
    const space = "http://www.w3.org/2000/svg";
    const drawing = document.createElementNS(space, "svg");
    drawing.setAttribute("viewBox", "0 0 16 16");
    drawing.setAttribute("aria-hidden", "true");
    for (const path of paths) {
      const line = document.createElementNS(space, "path");
      line.setAttribute("d", path);
      drawing.append(line);
    }
    return drawing;
  };
  const speaker = "M2 6h3l4-3v10l-4-3H2z";
  const speeds = [0.5, 0.75, 1, 1.25, 1.5, 2, 3];
  const streams = streamsOf(recording.files);
  const omissions = omissionsOf(recording.omitted_durations);
  const silent = new Set(silentOf(streams));
  let language = languageOf(navigator.language);
  let text = TEXTS[language];
  let totalMs = totalOf(streams, recording.total_time_ms);
  let positionMs = 0;
  let isPlaying = false;
  let isMuted = false;
  let rate = 1;
  let chosen = null;
  let problem = "";
  let tickedAt = performance.now();

  const stage = byId("stage");
  const seek = make("input", { id: "seek", type: "range", min: 0, step: 100, value: 0 });
  const empty = make("p", { id: "empty" });
  stage.append(empty);

  for (const stream of streams.filter((each) => each.isHere)) {
    const isAudio = stream.kind === "audio" || /\.(mp3|m4a|aac|ogg|opus|wav)$/.test(stream.name);
    const media = make(isAudio ? "audio" : "video", { preload: "metadata", src: addressOf(stream.name), playsInline: true });
    const label = make("span", {});
    const enlarge = make("button", { type: "button", className: "enlarge" }, icon("M9 3h4v4M13 3L9 7M7 13H3V9M3 13l4-4"));
    const sound = make("button", { type: "button", className: "mute" });
    const caption = make("figcaption", {}, label, sound, enlarge);
    const tile = make("figure", { className: `tile ${stream.kind}`, hidden: true });
    tile.append(...(isAudio ? [make("div", { className: "sound", textContent: "♪" }), media] : [media]), caption);
    Object.assign(stream, { media, tile, label, enlarge, sound, jumpedAt: -Infinity, slowSince: null });
    media.addEventListener("loadedmetadata", () => {
      if (Number.isFinite(media.duration) && media.duration > 0) {
        stream.lengthMs = media.duration * 1000;
        totalMs = totalOf(streams, recording.total_time_ms);
        drawLine();
      }
    });
    media.addEventListener("error", () => {
      stream.isBroken = true;
      translate();
    });
    enlarge.addEventListener("click", () => { chosen = stream.index; tick(); });
    sound.addEventListener("click", () => {
      if (!silent.delete(stream.index)) silent.add(stream.index);
      drawSound();
    });
    stage.append(tile);
  }

  function isWaiting(stream, now) {
    const { media } = stream;
    const isReady = media.ended || (!media.seeking && media.readyState >= HTMLMediaElement.HAVE_FUTURE_DATA)
      || positionMs > endOf(stream) - 300;
    if (isReady) stream.slowSince = null;
    else stream.slowSince ??= now;
    // One that does not come shall not hold up the others for ever.
    return !isReady && now - stream.slowSince < 15000;
  }

  // Bring a stream where it should be.
  function follow(stream, runs, now) {
    const { media } = stream;
    const aheadS = media.currentTime - (positionMs - stream.startMs) / 1000;
    if (media.seeking || media.readyState === HTMLMediaElement.HAVE_NOTHING) return;
    if (!runs) {
      if (!media.paused) media.pause();
      if (Math.abs(aheadS) > (isPlaying ? 0.2 : 0.05)) jump(stream, now);
      return;
    }
    if (media.ended) return;
    if (media.paused) {
      media.play().catch((error) => {
        if (error.name !== "NotAllowedError") return;
        problem = "blocked";
        setPlaying(false);
      });
    }
    const correction = correctionOf(aheadS, rate);
    if (correction.jump && now - stream.jumpedAt > 1500) jump(stream, now);
    const wanted = correction.jump ? rate * (aheadS > 0 ? 1 - MOST : 1 + MOST) : correction.rate;
    if (Math.abs(media.playbackRate - wanted) > 0.001) media.playbackRate = wanted;
  }

  function jump(stream, now) {
    stream.jumpedAt = now;
    stream.media.currentTime = Math.max(0, (positionMs - stream.startMs) / 1000);
  }

  function tick() {
    const now = performance.now();
    let active = activeAt(streams, positionMs);
    const waits = isPlaying && active.some((stream) => isWaiting(stream, now));
    if (isPlaying && !waits) {
      const elapsedMs = now - tickedAt;
      const leader = largeOf(active, chosen);
      // After a long sleep of the page or the machine it is the stream that knows how far it has come.
      positionMs = elapsedMs > 5000 && leader
        ? leader.startMs + leader.media.currentTime * 1000
        : positionMs + elapsedMs * rate;
      active = activeAt(streams, positionMs);
    }
    tickedAt = now;
    if (isPlaying && positionMs >= totalMs) {
      positionMs = totalMs;
      setPlaying(false);
    }
    for (const stream of streams.filter((each) => each.isHere)) {
      if (active.includes(stream)) follow(stream, isPlaying && !waits, now);
      else if (!stream.media.paused) stream.media.pause();
      // What begins soon is loaded by then.
      if (stream.startMs > positionMs && stream.startMs < positionMs + 10000) stream.media.preload = "auto";
    }
    draw(active, waits);
  }

  function draw(active, waits) {
    const large = largeOf(active, chosen);
    for (const stream of streams.filter((each) => each.isHere)) {
      const isActive = active.includes(stream);
      if (stream.tile.hidden === isActive) stream.tile.hidden = !isActive;
      stream.tile.classList.toggle("large", stream === large);
    }
    stage.classList.toggle("both", active.length > 1);
    stage.style.setProperty("--rows", Math.max(1, active.length - 1));
    empty.hidden = active.length > 0;
    const isPlayable = streams.some((stream) => stream.isHere && !stream.isBroken);
    const isOver = positionMs >= totalMs;
    show(empty, !isPlayable ? text.empty : isOver ? text.ended : text.nothing);
    show(byId("status"), waits ? text.loading : problem ? text[problem] : "");
    show(byId("now"), timeText(positionMs));
    const dayTime = dayTimeOf(recording.record_start_time, positionMs, omissions);
    show(byId("clock"), dayTime === null ? "" : new Date(dayTime).toLocaleTimeString(language));
    if (document.activeElement !== seek || isPlaying) seek.value = positionMs;
    seek.setAttribute("aria-valuetext", timeText(positionMs));
  }

  function show(element, content) {
    if (element.textContent !== content) element.textContent = content;
  }

  function setPlaying(wanted) {
    if (wanted) {
      problem = "";
      if (positionMs >= totalMs) positionMs = 0;
    }
    isPlaying = wanted;
    tickedAt = performance.now();
    show(byId("play"), isPlaying ? text.pause : text.play);
  }

  function goTo(ms) {
    positionMs = Math.max(0, Math.min(totalMs, ms));
    tick();
  }

  function setRate(wanted) {
    rate = wanted;
    byId("speed").value = String(rate);
  }

  function drawSound() {
    for (const stream of streams.filter((each) => each.isHere)) {
      stream.media.muted = isMuted || silent.has(stream.index);
      stream.sound.replaceChildren(icon(speaker, stream.media.muted ? "M11 6l4 4M15 6l-4 4" : "M11 6q2 2 0 4M13 4q4 4 0 8"));
      stream.sound.setAttribute("aria-label", `${labelOf(stream)}: ${silent.has(stream.index) ? text.unmute : text.mute}`);
    }
    show(byId("mute"), isMuted ? text.unmute : text.mute);
  }

  function labelOf(stream) {
    return stream.user ? `${text[stream.kind]} · ${stream.user}` : text[stream.kind];
  }

  function drawLine() {
    const line = byId("line");
    const percent = (ms) => `${Math.min(100, (100 * ms) / totalMs)}%`;
    seek.max = totalMs;
    show(byId("total"), timeText(totalMs));
    line.replaceChildren(make("span", { className: "name" }), seek);
    for (const stream of streams) {
      const bar = make("div", { className: `bar ${stream.isHere && !stream.isBroken ? stream.kind : "missing"}` });
      bar.style.left = percent(stream.startMs);
      bar.style.width = percent(Math.min(endOf(stream), totalMs) - stream.startMs);
      const track = make("div", { className: "track" }, bar);
      for (const omission of omissions) {
        const mark = make("div", { className: "mark", title: omissionText(omission) });
        mark.style.left = percent(omission.atMs);
        track.append(mark);
      }
      line.append(make("span", { className: "name", textContent: labelOf(stream), title: stream.name }), track);
    }
  }

  function omissionText(omission) {
    const length = omission.lengthMs === null ? text.unknown : timeText(omission.lengthMs);
    return text.for.replace("{at}", timeText(omission.atMs)).replace("{length}", length);
  }

  function drawNotes() {
    const notes = [];
    if (recording.error) {
      const told = [recording.error.code, recording.error.message].filter(Boolean).join(": ");
      notes.push(make("p", { className: "note", textContent: `${text.vendorError}. ${told}` }));
    }
    const missing = streams.filter((stream) => !stream.isHere);
    if (missing.length) {
      const items = missing.map((stream) => make("li", {
        textContent: [`${stream.name} (${labelOf(stream)})`, text[stream.outcome], stream.reason].filter(Boolean).join(" – "),
      }));
      notes.push(make("div", { className: "note" }, text.missing, make("ul", {}, ...items)));
    }
    if (omissions.length) {
      const items = omissions.map((omission) => {
        const button = make("button", { type: "button", textContent: omissionText(omission) });
        button.addEventListener("click", () => goTo(omission.atMs - 2000));
        return make("li", {}, button);
      });
      notes.push(make("div", { className: "note" }, text.omitted, make("ul", {}, ...items)));
    }
    byId("notes").replaceChildren(...notes);
  }

  function drawFiles() {
    const head = ["file", "shows", "person", "begins", "length", "size", "state"];
    const rows = streams.map((stream) => {
      const name = stream.isHere
        ? make("a", { href: addressOf(stream.name), textContent: stream.name })
        : document.createTextNode(stream.name);
      const state = stream.isBroken ? text.failed : text[stream.outcome];
      const cells = [
        text[stream.kind], stream.user || "", timeText(stream.startMs),
        stream.lengthMs === null ? text.unknown : timeText(stream.lengthMs), sizeText(stream.size),
      ];
      return make("tr", {}, make("td", {}, name), ...cells.map((cell) => make("td", { textContent: cell })),
        make("td", { textContent: state, className: stream.isHere && !stream.isBroken ? "" : "bad" }));
    });
    const titles = head.map((name) => make("th", { scope: "col", textContent: text[name] }));
    byId("files").replaceChildren(make("tr", {}, ...titles), ...rows);
  }

  function translate() {
    text = TEXTS[language];
    document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
    const startedAt = recording.record_start_time ? new Date(recording.record_start_time * 1000) : null;
    const title = [
      recording.room_id === null ? text.recording : `${text.room} ${recording.room_id}`,
      startedAt ? startedAt.toLocaleString(language, { dateStyle: "long", timeStyle: "short" }) : "",
    ].filter(Boolean).join(" · ");
    document.title = title;
    show(byId("title"), title);
    show(byId("subtitle"), `${text.application} ${recording.sdk_app_id} · ${text.task} ${recording.task_id}`);
    for (const [id, name] of [["language", "other"], ["speed-label", "speed"], ["files-title", "files"], ["keys", "keys"]]) {
      show(byId(id), text[name]);
    }
    show(byId("full"), document.fullscreenElement ? text.leave : text.full);
    seek.setAttribute("aria-label", text.position);
    for (const stream of streams.filter((each) => each.isHere)) {
      show(stream.label, labelOf(stream));
      stream.enlarge.setAttribute("aria-label", `${text.enlarge}: ${labelOf(stream)}`);
      stream.enlarge.title = text.enlarge;
    }
    setPlaying(isPlaying);
    drawSound();
    drawLine();
    drawNotes();
    drawFiles();
    tick();
  }

  function toggleFull() {
    if (document.fullscreenElement) document.exitFullscreen();
    else byId("player").requestFullscreen?.();
  }

  function toggleMuted() {
    isMuted = !isMuted;
    drawSound();
  }

  const byKey = {
    " ": () => setPlaying(!isPlaying),
    k: () => setPlaying(!isPlaying),
    ArrowLeft: () => goTo(positionMs - 5000),
    ArrowRight: () => goTo(positionMs + 5000),
    j: () => goTo(positionMs - 30000),
    l: () => goTo(positionMs + 30000),
    Home: () => goTo(0),
    End: () => goTo(totalMs),
    "<": () => setRate(speeds[Math.max(0, speeds.indexOf(rate) - 1)]),
    ">": () => setRate(speeds[Math.min(speeds.length - 1, speeds.indexOf(rate) + 1)]),
    m: toggleMuted,
    f: toggleFull,
  };
  document.addEventListener("keydown", (event) => {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const inControl = event.target instanceof HTMLSelectElement
      || ((event.target instanceof HTMLButtonElement || event.target instanceof HTMLAnchorElement) && key === " ");
    if (inControl || event.ctrlKey || event.altKey || event.metaKey || !Object.hasOwn(byKey, key)) return;
    event.preventDefault();
    byKey[key]();
  });

  byId("speed").append(...speeds.map((each) => make("option", { value: String(each), textContent: `${each}×` })));
  byId("speed").addEventListener("change", (event) => setRate(Number(event.target.value)));
  byId("play").addEventListener("click", () => setPlaying(!isPlaying));
  byId("mute").addEventListener("click", toggleMuted);
  byId("full").addEventListener("click", toggleFull);
  byId("language").addEventListener("click", () => {
    language = language === "zh" ? "en" : "zh";
    translate();
  });
  document.addEventListener("fullscreenchange", translate);
  seek.addEventListener("input", () => goTo(Number(seek.value)));
  setRate(1);
  translate();
  setInterval(tick, 100);
}

if (typeof document !== "undefined") start(JSON.parse(document.getElementById("recording").textContent));
