#!/usr/bin/env bash
# Run the fuzzers one after the other: fuzz.sh BUILD INPUTS. Says how many inputs each really had.
set -euo pipefail
build=$1 inputs=$2
python3 "$(dirname "$0")/seeds.py" "$build/seeds"
for name in manifest tokenizer pack history; do
    mkdir -p "$build/found/$name"
    log=$build/$name.log
    "$build/fuzz/fuzz_$name" -runs="$inputs" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -dict="$build/seeds/words" -artifact_prefix="$build/$name-" "$build/found/$name" "$build/seeds/$name" \
        >"$log" 2>&1 || { tail -40 "$log"; exit 1; }
    echo "$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, no finding"
done
