// One (batch, head) of an attention: where its rows lie and how its output is stored.
#pragma once

#include "ops/arguments.h"
#include "ops/float_tile.h"

namespace openwork::ops {

template <class V>
struct AttentionHead {
  const AttentionArgs& a;
  int64_t batch, head;

  const int64_t* mask() const { return a.mask ? a.mask + batch * a.length : nullptr; }
  bool kept(int64_t key) const { return !a.mask || a.mask[batch * a.length + key] != 0; }
  int64_t offset() const { return batch * a.length * a.stride + head * a.size; }

  [[gnu::always_inline]] void store(typename V::F32 v, int64_t query, int64_t d) const {
    const int64_t at = ((batch * a.length + query) * a.heads + head) * a.size + d;
    if (a.quantized)
      store_lanes<V>(static_cast<uint8_t*>(a.y) + at, openwork::quantize<V>(v, a.quantizer), a.size - d);
    else
      store_lanes<V>(static_cast<float*>(a.y) + at, v, a.size - d);
  }

  void zeros(int64_t begin, int64_t end) const {
    for (int64_t query = begin; query < end; ++query)
      for (int64_t d = 0; d < a.size; d += kStripLanes) store(V::zero(), query, d);
  }
};

}  // namespace openwork::ops
