// Rows of bytes put into wider rows, as they are or through a table: a concatenation.
#pragma once

#include "ops/arguments.h"

namespace openwork::ops {

template <class V, bool looked_up>
[[gnu::always_inline]] inline void copy_rows_of(const CopyRowsArgs& a, int64_t begin, int64_t end) {
  const auto made = [&](typename V::Bytes bytes) {
    if constexpr (looked_up) return V::lookup256(bytes, a.table);
    else return bytes;
  };
  for (int64_t row = begin; row < end; ++row) {
    const uint8_t* x = a.x + row * a.x_stride;
    uint8_t* y = a.y + row * a.y_stride;
    int64_t i = 0;
    for (; i + 64 <= a.bytes; i += 64) V::store_bytes(y + i, made(V::load_bytes(x + i)));
    const int left = static_cast<int>(a.bytes - i);
    if (left > 0) V::store_bytes_part(y + i, made(V::load_bytes_part(x + i, left)), left);
  }
}

template <class V>
void copy_rows(const CopyRowsArgs& a, int64_t begin, int64_t end) {
  a.table ? copy_rows_of<V, true>(a, begin, end) : copy_rows_of<V, false>(a, begin, end);
}

}  // namespace openwork::ops
