#!/usr/bin/env bash
# The benchmark in each power mode of a Jetson, then a comparison. Needs root for the modes; the mode that was set, and
# the clocks, are put back at the end, also after a failure.
#
#   sudo export/jetson/modes.sh FOLDER MODE... [-- arguments of linkedout-edge bench]
#   sudo export/jetson/modes.sh results 0 1 2 -- --device tensorrt cuda cpu --cache-dir engines
#
# Modes: grep "POWER_MODEL" /etc/nvpmodel.conf. Modes that need a restart are not set here: nvpmodel asks, and gets no.
set -euo pipefail

fail() { echo "modes.sh: $*" >&2; exit 2; }

(($# >= 2)) || fail "expected a folder and at least one mode, such as: modes.sh results 0 1"
out=$1
shift
modes=()
while (($#)) && [[ $1 != -- ]]; do
  [[ $1 =~ ^[0-9]+$ ]] || fail "the mode '$1' is no number: expected numbers of /etc/nvpmodel.conf, then -- and options"
  modes+=("$1")
  shift
done
(($#)) && shift
((${#modes[@]})) || fail "no mode: expected at least one number before --"
for tool in nvpmodel jetson_clocks linkedout-edge; do
  command -v "$tool" >/dev/null || fail "no $tool here: expected a Jetson with JetPack 6 and linkedout-edge on PATH"
done

mkdir -p "$out"
before=$(nvpmodel -q | grep -Eo '^[0-9]+$' | tail -n 1)
clocks=$(mktemp)
jetson_clocks --store "$clocks" >/dev/null
restore() {
  jetson_clocks --restore "$clocks" >/dev/null || true
  [[ -z $before ]] || nvpmodel -m "$before" </dev/null >/dev/null || true
  rm -f "$clocks"
}
trap restore EXIT

reports=()
for mode in "${modes[@]}"; do
  echo "== mode $mode"
  jetson_clocks --restore "$clocks" >/dev/null  # locked clocks would survive into a mode that forbids them
  nvpmodel -m "$mode" <<<NO || fail "mode $mode cannot be set without a restart: restart into it, then run one mode"
  jetson_clocks  # clocks at the mode's maximum: the governor's ramp is not what is compared
  linkedout-edge bench --save "$out/mode-$mode.json" "$@"
  reports+=("$out/mode-$mode.json")
done
for report in "${reports[@]:1}"; do
  linkedout-edge bench --compare "${reports[0]}" "$report"
done
