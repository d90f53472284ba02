// The epilogue of a product as a model gives it, and made ready for a kernel.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

#include "kernels/epilogue.h"
#include "runtime/buffer.h"

namespace openwork {

using LookupTable = std::array<uint8_t, 256>;

// For n channels.
struct EpilogueSpec {
  Floats scale;  // [n]
  Floats bias;   // [n], or empty
  ActivationFunction activation;
  bool activation_last = false;  // after the residual

  std::optional<Stored> residual;  // f32, bf16 or u8; the next two are the u8's
  float residual_scale = 1.0f;
  int residual_zero_point = 0;

  std::optional<Quantizer> sum;  // what the sums are rounded by before the residual; then the activation is last, or none
  float sum_scale = 1.0f;        // of its integers

  Stored output = Stored::f32;
  Floats inverse_scale;                        // [n], where quantized: y_multiplier / y_scale
  int y_zero_point = 0;                        // of the u8, also where the output is s8
  std::optional<LookupTable> lookup;           // where quantized
};

// Owns the arrays of an Epilogue.
class PreparedEpilogue {
 public:
  // `channels`: the spec's n or more, whole groups. Throws std::invalid_argument for what no kernel takes.
  PreparedEpilogue(const EpilogueSpec& spec, int64_t channels);

  Epilogue view() const;

 private:
  void prepare_residual(const EpilogueSpec& spec);
  void prepare_output(const EpilogueSpec& spec);
  bool scale_to_output(const EpilogueSpec& spec);
  bool bounded(const EpilogueSpec& spec) const;
  void prepare_rounded(const EpilogueSpec& spec);
  bool scale_rounded(const EpilogueSpec& spec);
  void take_ends(const EpilogueSpec& spec);

  size_t n_;
  Floats scale_, bias_, factor_, inverse_, sum_factor_, sum_bias_;
  Aligned<uint8_t> low_, high_, lookup_;
  Epilogue fixed_;
};

// quantize() of docs/arithmetic.md for one end of an activation.
uint8_t quantized_end(float end, const Quantizer& quantizer);

// What is wrong with an activation's numbers, or nothing.
std::optional<std::string> activation_problem(const ActivationFunction& activation);

// How many numbers a model gives to an activation: none, alpha, or alpha and beta.
int activation_numbers(Activation kind);

struct UnknownActivation : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};
// The activation of this name with the numbers it has where nothing else is said: "relu6" is clip from 0 to 6. Throws
// UnknownActivation with the names that there are.
ActivationFunction activation_named(const std::string& name);

}  // namespace openwork
