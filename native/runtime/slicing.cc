#include "runtime/slicing.h"

#include <unistd.h>

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
  const auto joins = [](const Step& step) { return step.joins_batch; };
  return std::all_of(values.begin(), values.end(), batched) && !reads_behind_an_output(program) &&
         std::none_of(program.steps().begin(), program.steps().end(), joins);
}

namespace {

int64_t second_level_bytes() {
  static const int64_t bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  return bytes > 0 ? bytes : int64_t{1} << 20;
}

// What a step moves: of a batch element, and of every slice.
struct Moved {
  int64_t element_bytes, weight_bytes;
};

std::vector<Moved> moved_by(const Program& program, const Sizes& sizes) {
  const auto bytes = [&](int v) {
    return sizes.elements(v) / sizes.dims[static_cast<size_t>(v)].front() * dtype_bytes(program.values()[static_cast<size_t>(v)].dtype);
  };
  std::vector<Moved> moved;
  for (const Step& step : program.steps()) {
    if (program.is_viewed(step)) continue;
    moved.push_back({0, step.weight_bytes});
    for (const Read& read : step.reads) moved.back().element_bytes += bytes(read.value);
    for (const int v : step.writes) moved.back().element_bytes += bytes(v);
  }
  return moved;
}

// Bytes that a batch element in slices of `size` costs from behind the second level of cache: its share of the weights, and of
// each step whose operands do not fit there those too.
double far_bytes(const std::vector<Moved>& moved, int64_t size) {
  double far = 0;
  for (const Moved& step : moved) {
    far += static_cast<double>(step.weight_bytes) / static_cast<double>(size);
    if (step.element_bytes * size > second_level_bytes()) far += static_cast<double>(step.element_bytes);
  }
  return far;
}

int64_t largest_rows(const Sizes& sizes) {
  int64_t rows = 1;
  for (size_t v = 0; v < sizes.dims.size(); ++v) rows = std::max(rows, sizes.rows(static_cast<int>(v)));
  return rows;
}

}  // namespace

Slicing slice_batch(const Program& program, const Sizes& sizes) {
  const int64_t batch = sizes.dims.front().front(), rows_each = std::max<int64_t>(1, largest_rows(sizes) / batch);
  const int64_t least = (kSliceRows + rows_each - 1) / rows_each;
  const int64_t most_turns = batch / least / sizes.threads;
  if (most_turns == 0) return {};
  const auto moved = moved_by(program, sizes);
  Slicing best;
  double fewest = 0;
  for (int64_t turns = most_turns; turns > 0; turns /= 2) {
    const Slicing slicing{batch / (turns * sizes.threads), turns * sizes.threads};
    const double far = far_bytes(moved, slicing.size);
    // One slice on one thread is the whole run.
    if (slicing.count == 1 || (best.count > 0 && far >= fewest)) continue;
    best = slicing;
    fewest = far;
  }
  return best;
}

}  // namespace openwork
