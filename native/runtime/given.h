// Tensors and attributes that a caller gives by name, and how they are read: every accessor checks what it reads and says what
// it expected and found.
#pragma once

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "runtime/buffer.h"
#include "runtime/dtype.h"
#include "runtime/epilogue.h"

namespace openwork {

// A tensor of the model that is borrowed, not copied: `owner` keeps the memory alive.
struct Tensor {
  DType dtype = DType::f32;
  const void* data = nullptr;
  std::vector<int64_t> shape;
  std::shared_ptr<const void> owner;

  // Of a tensor whose type was checked.
  template <class T>
  const T* get() const {
    return static_cast<const T*>(data);
  }
  int64_t elements() const;
};

using Attribute = std::variant<int64_t, double, std::string, std::vector<int64_t>>;

struct Given {
  std::map<std::string, Tensor> tensors;
  std::map<std::string, Attribute> attributes;
};

// Where a message says that something is wrong.
class Place {
 public:
  explicit Place(std::string text) : text_(std::move(text)) {}
  [[noreturn]] void fail(const std::string& sentence) const;  // throws std::invalid_argument
  void expect(bool holds, const std::string& sentence) const {
    if (!holds) fail(sentence);
  }

 private:
  std::string text_;
};

// A number of a name, to be checked further.
class Number {
 public:
  Number(const Place& place, const std::string& name, float value) : place_(place), name_(name), value_(value) {}
  const Number& positive() const;  // finite, and so is its inverse
  const Number& finite() const;
  operator float() const { return value_; }

 private:
  const Place& place_;
  std::string name_;
  float value_;
};

class Integer {
 public:
  Integer(const Place& place, const std::string& name, int64_t value) : place_(place), name_(name), value_(value) {}
  const Integer& within(int64_t low, int64_t high) const;
  operator int64_t() const { return value_; }

 private:
  const Place& place_;
  std::string name_;
  int64_t value_;
};

// The scale and zero point of a u8 value.
struct Quantization {
  float scale;
  int32_t zero_point;

  Quantizer quantizer() const { return {1.0f / scale, zero_point}; }
};

// Everything throws std::invalid_argument. What is read is remembered, so that what nothing reads can be refused.
class GivenReader : public Place {
 public:
  // `given` outlives the reader.
  GivenReader(std::string place, const Given& given) : Place(std::move(place)), given_(given) {}

  bool has(const std::string& name) const;

  // Without a default they must be there.
  Number number(const std::string& name, std::optional<float> otherwise = std::nullopt) const;
  Integer integer(const std::string& name, std::optional<int64_t> otherwise = std::nullopt) const;
  std::string text(const std::string& name, std::optional<std::string> otherwise = std::nullopt) const;
  bool flag(const std::string& name) const;  // 0 where it is absent
  template <size_t count>
  std::array<int64_t, count> list(const std::string& name,
                                  std::optional<std::array<int64_t, count>> otherwise = std::nullopt) const {
    if (otherwise && !has(name)) return *otherwise;
    std::array<int64_t, count> numbers;
    std::copy_n(integers(name, count, count).begin(), count, numbers.begin());
    return numbers;
  }
  // So many of them.
  const std::vector<int64_t>& integers(const std::string& name, size_t least, size_t most) const;
  // NAME_zero_point: from 0 to 255.
  int32_t zero_point(const std::string& name, std::optional<int64_t> otherwise = std::nullopt) const;
  // NAME_scale, a finite scale whose inverse is finite, and NAME_zero_point.
  Quantization quantization(const std::string& name) const;
  // Of this name, with the numbers `alpha` and `beta` where it has any and they are not the usual ones.
  ActivationFunction activation(const std::string& name) const;

  const Tensor& tensor(const std::string& name, DTypes dtypes) const;
  const Tensor& tensor(const std::string& name, DTypes dtypes, const std::vector<int64_t>& shape) const;
  // Copies what is read in whole strips, and refuses NaN and infinity.
  Floats floats(const std::string& name, const std::vector<int64_t>& shape) const;
  // The same, empty where it is absent.
  Floats optional_floats(const std::string& name, const std::vector<int64_t>& shape) const;
  LookupTable lookup_table(const std::string& name) const;
  // y_multiplier / y_scale of each of n channels.
  Floats inverse_scales(const Quantization& y, int64_t n) const;

  void expect_all_read() const;

 private:
  template <class T>
  const T* find(const std::string& name, const char* kind) const;
  [[noreturn]] void refuse_kind(const std::string& name, const char* kind) const;

  const Given& given_;
  mutable std::set<std::string> read_;
};

}  // namespace openwork
