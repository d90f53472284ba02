#include "runtime/slicing.h"

#include <algorithm>

namespace openwork {

namespace {

// A free dimension is in no second place, where one batch element would know of the others; a fixed size is there by chance. What
// has one dimension only is a row, which steps work on as a whole.
bool begins_with_batch(const Value& value, int64_t batch) {
  if (value.dims.front() != batch) return false;
  return batch < 0 ? std::count(value.dims.begin() + 1, value.dims.end(), batch) == 0 : value.dims.size() > 1;
}

bool reads_behind_an_output(const Program& program) {
  const auto& outputs = program.outputs();
  for (const Step& step : program.steps())
    for (const Read& read : step.reads)
      if (read.ahead && std::count(outputs.begin(), outputs.end(), program.home(read.value)) > 0) return true;
  return false;
}

}  // namespace

bool has_batch(const Program& program) {
  const auto& values = program.values();
  const auto batched = [&](const Value& value) { return begins_with_batch(value, values.front().dims.front()); };
  return std::all_of(values.begin(), values.end(), batched) && !reads_behind_an_output(program);
}

Slicing slice_batch(const Sizes& sizes) {
  const int64_t batch = sizes.dims.front().front();
  int64_t rows = 1;
  for (size_t v = 0; v < sizes.dims.size(); ++v) rows = std::max(rows, sizes.rows(static_cast<int>(v)));
  const int64_t rows_each = std::max<int64_t>(1, rows / batch);
  Slicing slicing;
  slicing.size = (kSliceRows + rows_each - 1) / rows_each;
  slicing.count = batch / slicing.size / sizes.threads * sizes.threads;
  // One slice on one thread is the whole run.
  if (slicing.count == 1) slicing.count = 0;
  return slicing;
}

}  // namespace openwork
