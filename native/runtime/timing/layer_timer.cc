#include "runtime/timing/layer_timer.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>

namespace openwork {

namespace {

// More than the second level cache of one core holds: between two uses of a layer's weights a network streams the other
// layers' weights through it, so that they come from the third level.
constexpr int64_t kOtherBytes = 4 << 20;
constexpr size_t kActivationSets = 4;

// Floats are drawn from [-1, 1): random bits would hold numbers that are none.
std::vector<uint8_t> random_activations(Type type, int64_t elements, std::mt19937& random) {
  std::vector<uint8_t> bytes(static_cast<size_t>(elements * element_bytes(type)));
  std::uniform_real_distribution<float> real(-1.0f, 1.0f);
  if (type == Type::i8) {
    for (size_t i = 0; i < bytes.size(); i += 4) {
      const auto four = static_cast<uint32_t>(random());
      std::memcpy(&bytes[i], &four, std::min<size_t>(4, bytes.size() - i));
    }
    return bytes;
  }
  for (int64_t i = 0; i < elements; ++i) {
    const float value = real(random);
    // The upper half of a binary32 is a BF16; this machine's order of bytes puts it last.
    const auto size = static_cast<size_t>(element_bytes(type));
    std::memcpy(&bytes[static_cast<size_t>(i) * size], reinterpret_cast<const char*>(&value) + sizeof value - size, size);
  }
  return bytes;
}

}  // namespace

LayerTimer::LayerTimer(int threads, Type type, int64_t x_elements, int64_t y_bytes)
    : pool_(threads), x_(x_elements * element_bytes(type)), y_(y_bytes),
      other_(static_cast<size_t>(kOtherBytes * threads / 8)), seen_(static_cast<size_t>(threads)) {
  std::mt19937 random(20);
  for (size_t i = 0; i < kActivationSets; ++i) sets_.push_back(random_activations(type, x_elements, random));
}

void LayerTimer::sweep() {
  const int64_t words = kOtherBytes / 8;
  pool_.run(pool_.threads(), [&](int64_t unit, int thread) {
    int64_t sum = 0;
    for (int64_t i = unit * words; i < (unit + 1) * words; i += 8) sum += other_[static_cast<size_t>(i)];
    seen_[static_cast<size_t>(thread)] += sum;
  });
}

void LayerTimer::fill(const std::vector<uint8_t>& set) {
  const size_t parts = static_cast<size_t>(pool_.threads()), size = set.size();
  pool_.run(pool_.threads(), [&](int64_t unit, int) {
    const size_t part = static_cast<size_t>(unit), begin = size * part / parts, end = size * (part + 1) / parts;
    std::memcpy(x_.data() + begin, set.data() + begin, end - begin);
  });
}

Type activation_type(const std::vector<std::shared_ptr<const PackedWeights>>& weights, bool floats) {
  const Type first = floats ? Type::f32 : weights[0]->type();
  for (const auto& w : weights)
    if (w->type() != first && !(floats && w->type() == Type::bf16))
      throw std::invalid_argument("Expected weights " + std::string(floats ? "of f32 or bf16" : "of one type") + " to time, found " +
                                  type_name(w->type()) + ".");
  return first;
}

LinearEpilogue timing_epilogue(int64_t n, const ActivationFunction& activation, bool quantized) {
  LinearEpilogue epilogue;
  epilogue.scale.assign(static_cast<size_t>(n), 1e-5f);
  epilogue.bias.assign(static_cast<size_t>(n), 0.1f);
  epilogue.x_zero_point = 0;  // as behind a ReLU, where images' padding may be left out
  epilogue.activation = activation;
  epilogue.output = quantized ? Stored::u8 : Stored::f32;
  epilogue.inverse_scale.assign(static_cast<size_t>(n), 50.0f);
  epilogue.y_zero_point = 128;
  return epilogue;
}

}  // namespace openwork
