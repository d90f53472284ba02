#include "kernels/weight_reader.h"

#include <cstring>

namespace openwork {

RunRows::RunRows(const WeightReader& reader, int64_t count)
    : reader_(reader), row_bytes_(reader.shape().run_elements() * element_bytes(reader.type())),
      rows_(static_cast<size_t>(count)) {
  if (reader.shape().groups == 1) return;
  spread_.resize(static_cast<size_t>(count * row_bytes_));
  held_.resize(static_cast<size_t>(count));
}

void RunRows::read(int64_t number, int64_t channel, int64_t run) {
  const WeightShape& shape = reader_.shape();
  const uint8_t*& row = rows_[static_cast<size_t>(number)];
  if (channel >= shape.n)
    row = nullptr;
  else if (shape.groups == 1)
    row = reader_.taps(channel, run * shape.run_taps());
  else
    row = spread(number, {channel, run});
}

template <class F>
void RunRows::each_tap(int64_t number, Held held, const F& f) {
  const WeightShape& shape = reader_.shape();
  const int64_t bytes = element_bytes(reader_.type());
  if (held.channel < 0) return;
  for (int64_t t = 0; t < shape.run_taps(); ++t)
    f(spread_.data() + number * row_bytes_ + (t * shape.pixel() + reader_.base(held.channel)) * bytes,
      reader_.taps(held.channel, held.run * shape.run_taps() + t), static_cast<size_t>(shape.channels * bytes));
}

uint8_t* RunRows::spread(int64_t number, Held held) {
  // Only what it held is cleared: a row is as long as all groups together.
  Held& before = held_[static_cast<size_t>(number)];
  each_tap(number, before, [](uint8_t* to, const uint8_t*, size_t bytes) { std::memset(to, 0, bytes); });
  each_tap(number, held, [](uint8_t* to, const uint8_t* from, size_t bytes) { std::memcpy(to, from, bytes); });
  before = held;
  return spread_.data() + number * row_bytes_;
}

}  // namespace openwork
