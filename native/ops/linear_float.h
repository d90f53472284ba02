// FP32 products of layers that stay in floating point, with bias, activation, residual and quantized output.
#pragma once

#include "ops/arguments.h"
#include "ops/float_tile.h"

namespace openwork::ops {

template <class V>
struct LinearFloatFinish {
  const LinearFloatArgs& a;

  [[gnu::noinline]] typename V::F32 activate(typename V::F32 v) const {
    typename V::F32 one[1] = {v};
    with_activation(a.activation.kind, [&]<Activation kind>() { activate_each<V, kind, 1>(one, a.activation); });
    return one[0];
  }

  void store(typename V::F32 sum, int64_t row, int64_t channel) const {
    const int64_t left = a.n - channel, at = row * a.n + channel;
    auto v = V::add(sum, V::load(a.bias + channel));
    if (!a.activation_last) v = activate(v);
    if (a.residual) v = V::add(v, load_lanes<V>(a.residual + at, left));
    if (a.activation_last) v = activate(v);
    if (a.quantized)
      store_lanes<V>(static_cast<uint8_t*>(a.y) + at, openwork::quantize<V>(v, a.quantizer), left);
    else
      store_lanes<V>(static_cast<float*>(a.y) + at, v, left);
  }
};

template <class V, int rows, int strips>
void linear_float_tile(const LinearFloatArgs& a, int64_t row, int64_t strip) {
  FloatTile<V, rows, strips> tile;
  tile.multiply(a.x + row * a.k, a.k, a.weight + strip * kStripLanes * a.k, kStripLanes * a.k, a.k);
  const LinearFloatFinish<V> finish{a};
  for (int r = 0; r < rows; ++r)
    for (int s = 0; s < strips; ++s) finish.store(tile.sum[r][s], row + r, (strip + s) * kStripLanes);
}

template <class V>
void linear_float(const LinearFloatArgs& a, int64_t begin, int64_t end) {
  const int64_t strips = (a.n + kStripLanes - 1) / kStripLanes;
  const int64_t blocks = (strips + kFloatStripBlock - 1) / kFloatStripBlock;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t row = unit / blocks * kFloatRowBlock, strip = unit % blocks * kFloatStripBlock;
    const int64_t row_end = row + kFloatRowBlock < a.rows ? row + kFloatRowBlock : a.rows;
    const int64_t strip_end = strip + kFloatStripBlock < strips ? strip + kFloatStripBlock : strips;
    cover<V::kFloatStrips>(strip, strip_end, [&]<int s>(int64_t first) {
      cover<V::kFloatRows>(row, row_end, [&]<int r>(int64_t at) { linear_float_tile<V, r, s>(a, at, first); });
    });
  }
}

}  // namespace openwork::ops
