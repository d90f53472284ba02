// The words of a matrix unit in plain C++: the meaning of those of amx.h.
#pragma once

#include "simd/array_tiles.h"
#include "simd/scalar.h"

namespace openwork {

struct AmxEmulated : Scalar {
  using Tiles = ArrayTiles<AmxEmulated>;

  // Byte i is the window's byte index[i] where bit i of `to` is set, else 0, or v's.
  static Bytes pick64(uint64_t to, const Bytes& window, const Bytes& index) { return pick64_into({}, to, window, index); }
  static Bytes pick64_into(Bytes v, uint64_t to, const Bytes& window, const Bytes& index) {
    for (int i = 0; i < 64; ++i)
      if (to >> i & 1) v.byte[i] = window.byte[index.byte[i] & 63];
    return v;
  }
  // The first bytes, one where each bit of `to` is set; else 0.
  static Bytes spread(uint64_t to, const Bytes& packed) {
    Bytes v = {};
    for (int i = 0, next = 0; i < 64; ++i)
      if (to >> i & 1) v.byte[i] = packed.byte[next++];
    return v;
  }
};

}  // namespace openwork
