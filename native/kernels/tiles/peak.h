// What a matrix unit does at most: products of its registers alone. Included only by the instruction sets' own translation units.
#pragma once

#include "kernels/peak.h"
#include "kernels/tiles/product.h"

namespace openwork::tiles {

// A tile's product is 256 dot products of a strip.
inline constexpr int kTileDots = 256;

template <class V, Type type>
void peak_of(const PeakArgs& a, int64_t turns) {
  using P = Product<V, type, 2, 2>;
  alignas(64) uint8_t factors[kTileBytes];
  for (int64_t i = 0; i < kTileBytes; ++i) factors[i] = a.factors[i % kPeakFactorBytes];
  typename V::Tiles tiles;
  P::configure(tiles, {kTileRows, kTileRows});
  tiles.template load<4>(factors, kLineBytes);
  tiles.template load<5>(factors, kLineBytes);
  tiles.template load<6>(factors, kLineBytes);
  tiles.template load<7>(factors, kLineBytes);
  // Whole rounds of the four accumulators, which are what the turns ask for or a little more.
  for (int64_t done = 0; done < turns * kPeakDots; done += 4 * kTileDots) {
    P::template multiply<0, 0, 0>(tiles);
    P::template multiply<0, 0, 1>(tiles);
    P::template multiply<0, 1, 0>(tiles);
    P::template multiply<0, 1, 1>(tiles);
  }
  alignas(64) typename P::Sum sums[kTileRows * kStripLanes];
  tiles.template store<0>(sums, kLineBytes);
  tiles.release();
  __builtin_memcpy(a.sum, sums, kLineBytes);
}

template <class V>
void peak(const PeakArgs& a, int64_t begin, int64_t end) {
  switch (a.type) {
    case Type::i8: return peak_of<V, Type::i8>(a, end - begin);
    case Type::bf16: return peak_of<V, Type::bf16>(a, end - begin);
    case Type::f32: return ops::peak_of<V, Type::f32>(a, end - begin);
  }
}

}  // namespace openwork::tiles
