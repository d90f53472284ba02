// Scaled dot-product attention of one (batch, head) at a time: in exact integer products where the head's numbers allow it,
// which is nearly always, else in binary32; a few queries in binary32, which packs nothing.
#pragma once

#include "ops/attention_fixed.h"
#include "ops/attention_float.h"

namespace openwork::ops {

// False where this head's numbers do not allow fixed point.
template <class V>
bool run_fixed(const AttentionHead<V>& head, int64_t begin, int64_t end) {
  FixedAttention<V> fixed(head);
  if (!fixed.prepare()) return false;
  fixed.run(begin, end);
  return true;
}

template <class V>
void attend(const AttentionHead<V>& head, int64_t begin, int64_t end) {
  const AttentionArgs& a = head.a;
  if (a.few()) return FloatAttention<V, false>(head).run(begin, end);
  if (a.score || a.probability || !run_fixed(head, begin, end)) FloatAttention<V, true>(head).run(begin, end);
}

template <class V>
void attention(const AttentionArgs& a, int64_t begin, int64_t end) {
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t pair = unit / a.parts, part = unit % a.parts;
    const AttentionHead<V> head(a, pair / a.heads, pair % a.heads);
    if (part == 0) head.remember();
    // Whole strips, so that no part ends inside a vector of queries.
    const int64_t strips = strips_of(a.length);
    const int64_t first = strips * part / a.parts * kStripLanes, last = strips * (part + 1) / a.parts * kStripLanes;
    attend(head, first, last < a.length ? last : a.length);
  }
}

}  // namespace openwork::ops
