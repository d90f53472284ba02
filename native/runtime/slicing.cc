#include "runtime/slicing.h"

#include <algorithm>

namespace openwork {

std::optional<int> batch_dimension(const Program& program) {
  if (program.values().empty()) return std::nullopt;
  const int64_t first = program.values().front().dims.front();
  if (first >= 0) return std::nullopt;
  for (const Value& value : program.values())
    if (value.dims.front() != first || std::count(value.dims.begin() + 1, value.dims.end(), first) > 0) return std::nullopt;
  const auto& outputs = program.outputs();
  for (const Step& step : program.steps())
    for (const Read& read : step.reads)
      if (read.ahead && std::count(outputs.begin(), outputs.end(), program.home(read.value)) > 0) return std::nullopt;
  return static_cast<int>(-1 - first);
}

Slicing slice_batch(const Program& program, int batch_dimension, const Sizes& sizes) {
  int64_t batch = 0, rows = 1;
  for (size_t v = 0; v < sizes.dims.size(); ++v) {
    if (program.values()[v].dims.front() == -1 - batch_dimension) batch = sizes.dims[v].front();
    rows = std::max(rows, sizes.rows(static_cast<int>(v)));
  }
  const int64_t rows_each = std::max<int64_t>(1, rows / std::max<int64_t>(1, batch));
  Slicing slicing;
  slicing.size = (kSliceRows + rows_each - 1) / rows_each;
  slicing.count = batch / slicing.size / sizes.threads * sizes.threads;
  // One slice on one thread is the whole run.
  if (slicing.count == 1) slicing.count = 0;
  return slicing;
}

}  // namespace openwork
