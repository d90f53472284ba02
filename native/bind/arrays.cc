#include "bind/arrays.h"

#include <stdexcept>

namespace openwork::bind {

namespace {

template <class T>
nb::object array_of(AlignedBuffer buffer, const std::vector<int64_t>& shape) {
  const std::vector<size_t> sizes(shape.begin(), shape.end());
  std::byte* data = buffer.release();
  const nb::capsule owner(data, [](void* p) noexcept { AlignedBuffer::free_aligned(p); });
  return nb::cast(nb::ndarray<nb::numpy, T, nb::c_contig>(data, sizes.size(), sizes.data(), owner));
}

// "float64", as NumPy calls it.
std::string dtype_text(nb::dlpack::dtype dtype) {
  static constexpr const char* kKinds[] = {"int", "uint", "float"};
  const char* kind = dtype.code < std::size(kKinds) ? kKinds[dtype.code] : "another type of ";
  return kind + std::to_string(int{dtype.bits});
}

[[noreturn]] void fail(const std::string& sentence) { throw std::invalid_argument(sentence); }

std::vector<int64_t> integers(nb::handle sequence) {
  std::vector<int64_t> numbers;
  for (const nb::handle item : sequence) numbers.push_back(nb::cast<int64_t>(item, false));
  return numbers;
}

// A number of NumPy counts as one of Python.
Attribute attribute_of(nb::handle value) {
  if (nb::isinstance<nb::str>(value)) return nb::cast<std::string>(value);
  if (nb::isinstance<nb::list>(value) || nb::isinstance<nb::tuple>(value)) return integers(value);
  if (PyIndex_Check(value.ptr())) return nb::cast<int64_t>(nb::int_(value));
  return nb::cast<double>(nb::float_(value));
}

// NumPy's numbers are none.
bool is_array(nb::handle value) { return nb::hasattr(value, "ndim") && nb::cast<int64_t>(value.attr("ndim")) > 0; }

void add_attribute(const std::string& name, nb::handle value, const std::string& place, Given& given) {
  try {
    given.attributes.emplace(name, attribute_of(value));
  } catch (const std::exception&) {
    fail(place + "expected the attribute " + name + " to be an integer, a number, a text or a list of integers, found " +
         nb::cast<std::string>(nb::repr(value)) + ".");
  }
}

}  // namespace

DType dtype_of(nb::dlpack::dtype type, const std::string& where) {
  if (type == nb::dtype<uint8_t>()) return DType::u8;
  if (type == nb::dtype<uint16_t>()) return DType::bf16;
  if (type == nb::dtype<float>()) return DType::f32;
  if (type == nb::dtype<int64_t>()) return DType::i64;
  fail(where + " of type u8, bf16 (as uint16), f32 or i64, found " + dtype_text(type) + ".");
}

Tensor tensor_of(const AnyArray& array, const std::string& where) {
  const std::shared_ptr<const void> owner(new AnyArray(array), [](const void* p) {
    const nb::gil_scoped_acquire gil;
    delete static_cast<const AnyArray*>(p);
  });
  return {dtype_of(array.dtype(), where), array.data(), shape_of(array), owner};
}

void add_tensors(const nb::dict& tensors, const std::string& place, Given& given) {
  for (const auto& [key, value] : tensors) {
    if (value.is_none()) continue;
    const auto name = nb::cast<std::string>(key);
    AnyArray array;
    if (!nb::try_cast<AnyArray>(value, array, false))
      fail(place + "expected " + name + " as a contiguous array of memory of the CPU, found another object; use "
           "numpy.ascontiguousarray.");
    given.tensors.emplace(name, tensor_of(array, place + "expected " + name));
  }
}

void add_attributes(const nb::dict& attributes, const std::string& place, Given& given) {
  for (const auto& [key, value] : attributes)
    if (!value.is_none()) add_attribute(nb::cast<std::string>(key), value, place, given);
}

Given given_of(const nb::kwargs& named, const std::string& place) {
  nb::dict tensors, attributes;
  for (const auto& [key, value] : named) (is_array(value) ? tensors : attributes)[key] = value;
  Given given;
  add_tensors(tensors, place, given);
  add_attributes(attributes, place, given);
  return given;
}

nb::object to_numpy(AlignedBuffer buffer, DType dtype, const std::vector<int64_t>& shape) {
  switch (dtype) {
    case DType::u8: return array_of<uint8_t>(std::move(buffer), shape);
    case DType::bf16: return array_of<uint16_t>(std::move(buffer), shape);
    case DType::i64: return array_of<int64_t>(std::move(buffer), shape);
    case DType::f32: break;
  }
  return array_of<float>(std::move(buffer), shape);
}

nb::object to_numpy(AlignedBuffer buffer, Stored type, const std::vector<int64_t>& shape) {
  switch (type) {
    case Stored::u8: return array_of<uint8_t>(std::move(buffer), shape);
    case Stored::s8: return array_of<int8_t>(std::move(buffer), shape);
    case Stored::bf16: return array_of<uint16_t>(std::move(buffer), shape);
    case Stored::f32: break;
  }
  return array_of<float>(std::move(buffer), shape);
}

}  // namespace openwork::bind
