#include "runtime/steps/copy.h"

#include <functional>
#include <numeric>

namespace openwork {

int64_t row_bytes(const Sizes& sizes, int value, int64_t axis, DType dtype) {
  const auto& dims = sizes.dims[static_cast<size_t>(value)];
  return std::accumulate(dims.begin() + axis, dims.end(), dtype_bytes(dtype), std::multiplies<>());
}

Work copy_all(const KernelTable& table, const Sizes& sizes, int x, int y, DType dtype) {
  constexpr int64_t kRow = 4096;
  const int64_t bytes = sizes.elements(x) * dtype_bytes(dtype), units = (bytes + kRow - 1) / kRow;
  Work work;
  work.units = units;
  work.chunk = even_chunk(units, sizes.threads);
  work.run = [&table, bytes, x, y](const Buffers& b, const Part& part) {
    const int64_t from = part.begin * kRow, size = std::min(bytes, part.end * kRow) - from;
    table.copy_rows({b.get<const uint8_t>(x) + from, size, size, nullptr, b.get<uint8_t>(y) + from, size}, 0, 1);
  };
  return work;
}

}  // namespace openwork
