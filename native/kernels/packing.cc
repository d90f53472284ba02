#include "kernels/packing.h"

#include <bit>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

namespace openwork {
namespace {

// 255 * 127 * k < 2^31: the INT32 sum is exact (docs/arithmetic.md).
constexpr int64_t kMaxReduction = 66000;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
int field_bits(int group) { return std::bit_width(static_cast<unsigned>(group - 1)); }

void check_shape(int64_t n, int64_t k) {
  if (n >= 1 && k >= 1 && k <= kMaxReduction) return;
  throw std::invalid_argument("Expected weights of at least 1 output channel and 1 to " + std::to_string(kMaxReduction) +
                              " input channels, found " + std::to_string(n) + " x " + std::to_string(k) +
                              "; a longer reduction could overflow INT32.");
}

void check_pattern(const SparseWeights& w, Form form, const KernelTable& table) {
  const FormInfo& info = form_info(form);
  const std::string pattern = std::to_string(w.kept) + ":" + std::to_string(w.group);
  if (w.kept < 1 || w.kept > w.group || w.group > 256)
    throw std::invalid_argument("Expected a pattern N:M with 1 <= N <= M <= 256, found " + pattern + ".");
  if (!info.shuffled || !table.gemm[static_cast<int>(form)])
    throw std::invalid_argument("The form " + std::string(info.name) + " does not hold sparse weights on " + table.isa + ".");
  if (info.window % w.group != 0)
    throw std::invalid_argument("The form " + std::string(info.name) + " reads windows of " + std::to_string(info.window) +
                                " input channels, which do not hold whole groups of the pattern " + pattern +
                                "; use a wider form or dense.");
}

// Fields of `bits` bits, from the least significant bit of each byte upwards.
int read_field(const uint8_t* bytes, int64_t field, int bits) {
  int value = 0;
  for (int b = 0; b < bits; ++b) {
    const int64_t bit = field * bits + b;
    value |= ((bytes[bit / 8] >> (bit % 8)) & 1) << b;
  }
  return value;
}

}  // namespace

int64_t index_bytes(int64_t k, int kept, int group) {
  return divide_up(divide_up(k, group) * kept * field_bits(group), 8);
}

void PackedWeights::Free::operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t(64)); }

PackedWeights::PackedWeights(Form form, int64_t n, int64_t k, int64_t steps, const KernelTable& table)
    : form_(form),
      n_(n),
      k_(k),
      windows_(divide_up(k, form_info(form).window)),
      steps_(steps),
      groups_(divide_up(n, int64_t{table.strips} * kStripLanes)),
      table_(table),
      data_(static_cast<std::byte*>(::operator new[](static_cast<size_t>(bytes()), std::align_val_t(64)))),
      column_sums_(static_cast<size_t>(channels()), 0) {
  std::memset(data_.get(), 0, static_cast<size_t>(bytes()));
}

int64_t PackedWeights::group_bytes() const {
  return windows_ * steps_ * index_distance() * (form_info(form_).shuffled ? 2 : 1);
}

PackedView PackedWeights::view() const {
  return {reinterpret_cast<const uint8_t*>(data_.get()), group_bytes(), groups_, windows_, steps_};
}

int64_t PackedWeights::weight_at(int64_t channel, int64_t window, int64_t slot) const {
  const int64_t strip = channel / kStripLanes, group = strip / table_.strips;
  const bool shuffled = form_info(form_).shuffled;
  const int64_t step = window * steps_ + slot / 4;
  return group * group_bytes() + step * index_distance() * (shuffled ? 2 : 1) + (shuffled ? index_distance() : 0) +
         64 * (strip % table_.strips) + 4 * (channel % kStripLanes) + slot % 4;
}

void PackedWeights::set(int64_t channel, int64_t window, int64_t slot, int8_t value, int position) {
  // -128 has no opposite in a byte, and AVX2 needs one (avx2.h, dot).
  if (value == -128)
    throw std::invalid_argument("Expected symmetric weights in [-127, 127], found -128 in output channel " +
                                std::to_string(channel) + "; quantize the weights symmetrically.");
  const int64_t at = weight_at(channel, window, slot);
  data_[at] = static_cast<std::byte>(value);
  if (form_info(form_).shuffled) data_[at - index_distance()] = static_cast<std::byte>(position);
  column_sums_[static_cast<size_t>(channel)] += value;
}

std::shared_ptr<const PackedWeights> PackedWeights::dense(const int8_t* weight, int64_t n, int64_t k,
                                                          const KernelTable& table) {
  check_shape(n, k);
  std::shared_ptr<PackedWeights> packed(new PackedWeights(Form::dense, n, k, 1, table));
  for (int64_t c = 0; c < n; ++c)
    for (int64_t i = 0; i < k; ++i) packed->set(c, i / 4, i % 4, weight[c * k + i], 0);
  return packed;
}

std::shared_ptr<const PackedWeights> PackedWeights::sparse(const SparseWeights& w, Form form, const KernelTable& table) {
  check_shape(w.n, w.k);
  check_pattern(w, form, table);
  const int64_t per_window = form_info(form).window / w.group;  // groups
  std::shared_ptr<PackedWeights> packed(new PackedWeights(form, w.n, w.k, divide_up(per_window * w.kept, 4), table));
  const int64_t groups = divide_up(w.k, w.group), row_bytes = index_bytes(w.k, w.kept, w.group);
  const int bits = field_bits(w.group);
  for (int64_t c = 0; c < w.n; ++c) {
    for (int64_t i = 0; i < groups * w.kept; ++i) {
      const int64_t group = i / w.kept, window = group / per_window;
      const int position = read_field(w.indices + c * row_bytes, i, bits);
      const int8_t value = w.values[c * groups * w.kept + i];
      if (position >= w.group || (value != 0 && group * w.group + position >= w.k))
        throw std::invalid_argument("Output channel " + std::to_string(c) + ", group " + std::to_string(group) +
                                    " of the compressed weights names position " + std::to_string(position) +
                                    ", which is outside the group or the " + std::to_string(w.k) + " input channels.");
      const int64_t in_window = group % per_window;
      packed->set(c, window, in_window * w.kept + i % w.kept, value, static_cast<int>(in_window * w.group + position));
    }
  }
  return packed;
}

}  // namespace openwork
