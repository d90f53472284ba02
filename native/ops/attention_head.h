// One (batch, head) of an attention: where its rows lie, what its queries see, and how its output is stored.
#pragma once

#include <cstring>

#include "ops/arguments.h"
#include "ops/float_tile.h"

namespace openwork::ops {

// The keys or the values of a head: those of the past, then the new ones.
struct PastAndFresh {
  const float *past, *fresh;
  int64_t length, size, stride;  // of the past; of a row; from one new row to the next

  [[gnu::always_inline]] const float* operator[](int64_t j) const {
    return j < length ? past + j * size : fresh + (j - length) * stride;
  }
  void copy(float* to, int64_t keys) const {
    if (length > 0) std::memcpy(to, past, static_cast<size_t>(length * size) * sizeof(float));
    for (int64_t j = length; j < keys; ++j)
      std::memcpy(to + j * size, (*this)[j], static_cast<size_t>(size) * sizeof(float));
  }
};

template <class V>
struct AttentionHead {
  const AttentionArgs& a;
  int64_t batch, head, group;
  PastAndFresh keys, values;

  AttentionHead(const AttentionArgs& args, int64_t b, int64_t h)
      : a(args),
        batch(b),
        head(h),
        group(h / (a.heads / a.groups)),
        keys(rows(a.past_k, a.k)),
        values(rows(a.past_v, a.v)) {}

  bool kept(int64_t key) const { return !a.mask || a.mask[batch * a.keys() + key] != 0; }
  const float* queries() const { return a.q + batch * a.length * a.q_stride + head * a.size; }
  // The bias of a query, or null.
  const float* bias(int64_t query) const {
    const AttentionBias& b = a.bias;
    return b.data ? b.data + (batch % b.batches) * b.batch + head * b.head + query * b.query : nullptr;
  }

  // The first head of a group puts all its keys and values where the next run finds them.
  void remember() const {
    if (head % (a.heads / a.groups) != 0) return;
    const int64_t at = (batch * a.groups + group) * a.keys() * a.size;
    if (a.present_k) keys.copy(a.present_k + at, a.keys());
    if (a.present_v) values.copy(a.present_v + at, a.keys());
  }

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

 private:
  PastAndFresh rows(const float* past, const float* fresh) const {
    return {past ? past + (batch * a.groups + group) * a.past * a.size : nullptr,
            fresh ? fresh + batch * a.fresh * a.stride + group * a.size : nullptr, a.past, a.size, a.stride};
  }
};

}  // namespace openwork::ops
