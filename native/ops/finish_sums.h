// The epilogue alone, on sums that stand in memory.
#pragma once

#include "kernels/finish.h"
#include "ops/arguments.h"

namespace openwork::ops {

template <class V, class Sum>
void finish_rows(const FinishArgs& a, const Sum* sums, int64_t begin, int64_t end) {
  const Part part{begin, static_cast<int>(end - begin), a.channel, a.channels};
  choose_finish<V, Sum>(a.product)(a.product, Sums<Sum>{sums + begin * a.stride, a.stride}, part);
}

template <class V>
void finish_sums(const FinishArgs& a, int64_t begin, int64_t end) {
  if (a.integers)
    finish_rows<V>(a, a.integers, begin, end);
  else
    finish_rows<V>(a, a.floats, begin, end);
}

}  // namespace openwork::ops
