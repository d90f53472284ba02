#include "kernels/weight_reader.h"

#include <cstring>

namespace openwork {

RunRows::RunRows(const WeightReader& reader, int64_t count)
    : reader_(reader), row_bytes_(reader.shape().run_elements() * element_bytes(reader.type())), rows_(static_cast<size_t>(count)) {
  if (reader.shape().groups > 1) spread_.resize(static_cast<size_t>(count * row_bytes_));
}

void RunRows::read(int64_t number, int64_t channel, int64_t run) {
  const WeightShape& shape = reader_.shape();
  const uint8_t*& row = rows_[static_cast<size_t>(number)];
  if (channel >= shape.n)
    row = nullptr;
  else if (shape.groups == 1)
    row = reader_.taps(channel, run * shape.run_taps());
  else
    row = spread(spread_.data() + number * row_bytes_, channel, run);
}

const uint8_t* RunRows::spread(uint8_t* to, int64_t channel, int64_t run) const {
  const WeightShape& shape = reader_.shape();
  const int64_t bytes = element_bytes(reader_.type());
  std::memset(to, 0, static_cast<size_t>(row_bytes_));
  for (int64_t t = 0; t < shape.run_taps(); ++t)
    std::memcpy(to + (t * shape.pixel() + reader_.base(channel)) * bytes, reader_.taps(channel, run * shape.run_taps() + t),
                static_cast<size_t>(shape.channels * bytes));
  return to;
}

}  // namespace openwork
