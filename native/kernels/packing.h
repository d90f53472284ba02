// Packs weights into the form that a kernel reads (PackedView in gemm.h), for one instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/huge_pages.h"
#include "kernels/table.h"
#include "kernels/weight_shape.h"

namespace openwork {

// Why the form does not hold weights of this shape on the instruction set; empty where it does.
std::string refusal(const WeightShape& shape, Type type, Form form, const KernelTable& table);

// Immutable, and shared by every context that runs it.
class PackedWeights {
 public:
  // `weight`: s8, BF16 as its upper 16 bits, or binary32, by `type`. Zeros are left out of the shuffled forms, whatever the
  // pattern. Throws std::invalid_argument for an empty weight or a reduction that INT32 cannot hold, a weight of -128 or one
  // that is not finite, and where the form is not on this instruction set or does not hold these weights.
  static std::shared_ptr<const PackedWeights> pack(const WeightShape& shape, Type type, const void* weight, Form form,
                                                   const KernelTable& table);

  PackedView view() const;
  Form form() const { return form_; }
  Type type() const { return type_; }
  const WeightShape& shape() const { return shape_; }
  int64_t n() const { return shape_.n; }
  int64_t k() const { return shape_.k(); }
  int64_t groups() const { return groups_; }      // of strips
  int64_t span() const { return span_; }          // groups that only run together
  int64_t row_step() const { return form_info(form_).row_step(); }  // blocks of rows best begin at multiples of it
  int64_t channels() const { return groups_ * table_.group_channels(form_); }
  int64_t steps() const { return static_cast<int64_t>(advance_.size()); }
  int64_t bytes() const { return group_data_.back(); }
  // What the kernel's time is expected to follow: dot products of a strip that each row takes.
  double work() const;
  // What the kernel needs of each thread's memory while it runs.
  int64_t scratch_bytes() const;
  const KernelTable& table() const { return table_; }
  // Per channel the sum of its INT8 weights, zero behind n; in natural order.
  const std::vector<int32_t>& column_sums() const { return column_sums_; }
  // The output channel that stands in lane packed % 16 of strip packed / 16, in whole groups.
  int64_t natural(int64_t packed) const;
  GemmKernel kernel() const { return table_.kernel(type_, form_); }

 private:
  friend class Packer;
  PackedWeights(const WeightShape& shape, Type type, Form form, const KernelTable& table);
  void add_columns(const int8_t* weight);

  WeightShape shape_;
  Type type_;
  Form form_;
  const KernelTable& table_;
  int64_t groups_, span_ = 1;
  MemoryBlock data_ = no_block();
  std::vector<int64_t> group_data_, group_step_;
  std::vector<int32_t> run_steps_, advance_, order_;
  std::vector<int32_t> column_sums_;
};

}  // namespace openwork
