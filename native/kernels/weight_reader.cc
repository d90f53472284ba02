#include "kernels/weight_reader.h"

#include <algorithm>

namespace openwork {

int64_t WeightReader::source(int64_t channel, int64_t run, int64_t at) const {
  if (channel >= shape_.n) return -1;
  const int64_t tap = at / shape_.pixel(), within = at % shape_.pixel() - base(channel);
  if (tap >= shape_.run_taps() || within < 0 || within >= shape_.channels) return -1;
  return channel * shape_.k() + (run * shape_.run_taps() + tap) * shape_.channels + within;
}

Positions WeightReader::positions(int64_t channel, int64_t share, int64_t run) const {
  Positions found;
  for (int64_t c = channel; c < std::min(channel + share, shape_.n); ++c)
    for (int64_t t = 0; t < shape_.run_taps(); ++t)
      for (int64_t i = 0; i < shape_.channels; ++i)
        if (!is_zero(c * shape_.k() + (run * shape_.run_taps() + t) * shape_.channels + i))
          found.push_back(static_cast<int32_t>(t * shape_.pixel() + base(c) + i));
  if (share > 1) {
    std::sort(found.begin(), found.end());
    found.erase(std::unique(found.begin(), found.end()), found.end());
  }
  return found;
}

// -0 multiplies to nothing either: its only bit is the top one of the last byte.
bool WeightReader::is_zero(int64_t source) const {
  const uint8_t* element = at(source);
  for (int64_t b = 0; b < bytes_ - 1; ++b)
    if (element[b] != 0) return false;
  const uint8_t last = element[bytes_ - 1];
  return last == 0 || (type_ != Type::i8 && last == 0x80);
}

}  // namespace openwork
