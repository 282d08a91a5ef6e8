// Draws two stories above each other: bytes per pool, sleepers, wakeups and pages. Zoom with the
// wheel, the buttons or + and -; move with a drag or the arrow keys. The cursor tells the story of
// the event next to it. No library is used.
(() => {
  const root = document.getElementById("timeline");
  const stories = JSON.parse(document.getElementById("stories").textContent);
  const told = document.getElementById("told");
  const canvas = root.querySelector("canvas");
  const pen = canvas.getContext("2d");
  const colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];
  const marks = { out: "#7f7f7f", run: "#e69f00" };
  const LEFT = 78, BYTES = 110, LANE = 14, GAP = 58;
  const end = stories[0].end;
  let from = 0, to = end, cursor = null, dragged = null;

  const height = story => BYTES + LANE * (story.lanes.length + 3) + GAP;
  const width = () => canvas.clientWidth;
  const x = time => LEFT + (time - from) / (to - from) * (width() - LEFT - 8);
  const time = px => from + (px - LEFT) / (width() - LEFT - 8) * (to - from);

  function text(words, left, top, align = "left") {
    pen.textAlign = align;
    pen.fillText(words, left, top);
  }

  function drawStory(story, top, ink) {
    pen.fillStyle = ink;
    pen.font = "bold 12px sans-serif";
    text((story.kernel === "as it is" ? "Before: the kernel as it is" : "After: " + story.kernel), LEFT, top + 12);
    pen.font = "11px sans-serif";
    const base = top + 20 + BYTES, scale = BYTES / story.limit / 1.1;
    text(story.limit / 1024 + " KiB", LEFT - 6, base - story.limit * scale + 4, "right");
    text("0", LEFT - 6, base, "right");
    pen.save();
    pen.beginPath();
    pen.rect(LEFT, top, width() - LEFT - 8, height(story));
    pen.clip();
    story.steps.forEach(([start, bytes], at) => {
      const stop = at + 1 < story.steps.length ? story.steps[at + 1][0] : end;
      let low = base;
      bytes.forEach((nbytes, pool) => {
        pen.fillStyle = colours[pool];
        pen.globalAlpha = 0.75;
        pen.fillRect(x(start), low - nbytes * scale, x(stop) - x(start) + 0.5, nbytes * scale);
        low -= nbytes * scale;
      });
    });
    pen.globalAlpha = 1;
    pen.strokeStyle = ink;
    pen.setLineDash([5, 4]);
    pen.strokeRect(LEFT - 5, base - story.limit * scale, width(), story.limit * scale + 1);
    pen.setLineDash([]);
    const lane = row => base + 14 + row * LANE;
    story.lanes.forEach(([, asked, served], row) => {
      pen.fillStyle = served === null ? colours[1] : colours[0];
      pen.fillRect(x(asked), lane(row) - 4, x(served ?? end) - x(asked), 8);
    });
    const rows = { out: 0, run: 2 };
    story.events.filter(([, kind]) => kind in rows).forEach(([at, kind]) => {
      pen.fillStyle = marks[kind];
      pen.fillRect(x(at) - 3, lane(story.lanes.length + rows[kind]) - 4, 6, 8);
    });
    story.taken.forEach(([at, pool, sleeper]) => {
      pen.fillStyle = pen.strokeStyle = colours[story.pools.indexOf(pool)];
      pen[sleeper ? "fillRect" : "strokeRect"](x(at) - 3, lane(story.lanes.length + 1) - 4, 6, 8);
    });
    pen.restore();
    pen.fillStyle = ink;
    [...story.lanes.map(it => it[0]), "page leaves", "page taken", "wakeup"].forEach((name, row) =>
      text(name, LEFT - 6, lane(row) + 4, "right"));
  }

  function draw() {
    const ratio = window.devicePixelRatio || 1, ink = getComputedStyle(root).color;
    const tall = stories.reduce((sum, story) => sum + height(story), 0) + 10;
    canvas.style.height = tall + "px";
    canvas.width = Math.round(width() * ratio);
    canvas.height = Math.round(tall * ratio);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    let top = 0;
    for (const story of stories) {
      drawStory(story, top, ink);
      top += height(story);
    }
    pen.fillStyle = ink;
    pen.font = "11px sans-serif";
    const step = [0.1, 0.2, 0.5, 1, 2, 5].find(it => (to - from) / it <= width() / 70) ?? 10;
    for (let at = Math.ceil(from / step) * step; at <= to + 1e-9; at += step)
      text(+at.toFixed(3) + " s", x(at), tall - 4, x(at) > width() - 24 ? "right" : "center");
    if (cursor !== null) {
      pen.strokeStyle = ink;
      pen.strokeRect(x(cursor), 0, 0.5, tall - 16);
    }
  }

  function tell(at) {
    cursor = Math.min(to, Math.max(from, at));
    const lines = stories.map(story => {
      const near = story.events.reduce((best, it) =>
        Math.abs(it[0] - cursor) < Math.abs(best[0] - cursor) ? it : best);
      const same = story.events.filter(it => it[0] === near[0]).map(it => it[2]);
      const more = same.length > 4 ? [...same.slice(0, 4), `and ${same.length - 4} more`] : same;
      return `${story.kernel}, ${near[0].toFixed(2)} s: ${more.join("; ")}`;
    });
    told.replaceChildren(...lines.map(line => Object.assign(document.createElement("p"), { textContent: line })));
    draw();
  }

  function zoom(factor, around = (from + to) / 2) {
    const span = Math.min(end, Math.max(0.5, (to - from) * factor));
    const left = around - (around - from) / (to - from) * span;
    from = Math.min(end - span, Math.max(0, left));
    to = from + span;
    draw();
  }

  function move(seconds) {
    const by = Math.min(end - to, Math.max(-from, seconds));
    from += by;
    to += by;
    draw();
  }

  canvas.addEventListener("wheel", event => {
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, time(event.offsetX));
  }, { passive: false });
  canvas.addEventListener("pointerdown", event => { dragged = event.offsetX; });
  window.addEventListener("pointerup", () => { dragged = null; });
  canvas.addEventListener("pointermove", event => {
    if (dragged !== null && event.buttons) {
      move(time(dragged) - time(event.offsetX));
      dragged = event.offsetX;
    }
    tell(time(event.offsetX));
  });
  const actions = { in: () => zoom(0.5), out: () => zoom(2), all: () => zoom(1e9) };
  root.querySelectorAll("button").forEach(button =>
    button.addEventListener("click", () => actions[button.value]()));
  const keys = { "+": actions.in, "-": actions.out, ArrowLeft: () => tell((cursor ?? from) - (to - from) / 60),
    ArrowRight: () => tell((cursor ?? from) + (to - from) / 60) };
  canvas.addEventListener("keydown", event => {
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });
  new ResizeObserver(draw).observe(root);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  tell(14);
})();
