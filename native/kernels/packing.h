// Packs weights into the form that a kernel reads (PackedView in gemm.h), for one instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/table.h"

namespace openwork {

// Canonical compressed N:M weights (docs/program.md): per channel and group of `group` input channels `kept` values, and
// their positions in the group as fields of ceil(log2 group) bits.
struct SparseWeights {
  const int8_t* values = nullptr;    // [n, ceil(k / group) * kept]
  const uint8_t* indices = nullptr;  // [n, index_bytes(...)]
  int64_t n = 0, k = 0;
  int kept = 0, group = 0;
};
int64_t index_bytes(int64_t k, int kept, int group);

// Immutable, and shared by every context that runs it.
class PackedWeights {
 public:
  // `weight` is [n, k]. Throws std::invalid_argument for an empty or too long reduction, or a weight of -128.
  static std::shared_ptr<const PackedWeights> dense(const int8_t* weight, int64_t n, int64_t k, const KernelTable& table);
  // Throws std::invalid_argument where the form is not on this instruction set, where a window does not hold whole groups,
  // or where an index leaves its group.
  static std::shared_ptr<const PackedWeights> sparse(const SparseWeights& weights, Form form, const KernelTable& table);

  PackedView view() const;
  Form form() const { return form_; }
  int64_t n() const { return n_; }
  int64_t k() const { return k_; }
  int64_t groups() const { return groups_; }
  int64_t channels() const { return groups_ * table_.strips * kStripLanes; }
  int64_t bytes() const { return groups_ * group_bytes(); }
  const KernelTable& table() const { return table_; }
  // Per channel the sum of its weights, zero behind n.
  const std::vector<int32_t>& column_sums() const { return column_sums_; }

 private:
  PackedWeights(Form form, int64_t n, int64_t k, int64_t steps, const KernelTable& table);
  int64_t group_bytes() const;
  // The byte of slot `slot` of a channel and window: four slots a step. Indices lie `index_distance` bytes before it.
  int64_t weight_at(int64_t channel, int64_t window, int64_t slot) const;
  int64_t index_distance() const { return 64 * table_.strips; }
  void set(int64_t channel, int64_t window, int64_t slot, int8_t value, int position);

  struct Free {
    void operator()(std::byte* p) const;
  };
  Form form_;
  int64_t n_, k_, windows_, steps_, groups_;
  const KernelTable& table_;
  std::unique_ptr<std::byte[], Free> data_;
  std::vector<int32_t> column_sums_;
};

}  // namespace openwork
