// Counts what a handler was given, and says when the first and the last of it came: as bench/contenders/progress.py does.
import { renameSync, writeFileSync } from 'node:fs'

const { BENCH_MESSAGES, BENCH_REPORT } = process.env
const expected = Number(BENCH_MESSAGES)
let handled = 0
let first

const seconds = () => Number(process.hrtime.bigint()) / 1e9
const cpuSeconds = () => {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}

export function countHandled () {
  if (++handled === 1) first = { s: seconds(), cpu: cpuSeconds() }
  if (handled !== expected) return
  const report = { messages: handled - 1, elapsed_s: seconds() - first.s, cpu_s: cpuSeconds() - first.cpu }
  writeFileSync(`${BENCH_REPORT}.unfinished`, JSON.stringify(report))
  renameSync(`${BENCH_REPORT}.unfinished`, BENCH_REPORT)
}
