// Python module fastcodec._host: byte-level work on the host. Types in fastcodec/_host.pyi.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <sstream>

#include "arithmetic_coder.h"
#include "bit_packer.h"
#include "cpu_report.h"
#include "entropy_model.h"
#include "quantized_cdf.h"

namespace py = pybind11;

namespace fastcodec {
namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;
using Shape = std::vector<py::ssize_t>;

std::string_view View(const py::buffer_info& info) {
  if (info.ndim > 1 || info.itemsize != 1 || (info.ndim == 1 && info.strides[0] != 1)) {
    throw std::invalid_argument("data must be contiguous bytes");
  }
  return {static_cast<const char*>(info.ptr), static_cast<size_t>(info.size)};
}

void CheckWidth(int width) {
  if (width < 1 || width > kMaxBitWidth) {
    throw std::invalid_argument("width must be in [1, 16], got " + std::to_string(width));
  }
}

py::bytes PyPackBits(const Array<int64_t>& values, int width) {
  CheckWidth(width);
  return PackBits(values.data(), values.size(), width);
}

py::array PyUnpackBits(const py::buffer& data, int width, int64_t count) {
  CheckWidth(width);
  const py::buffer_info info = data.request();
  const std::string_view bytes = View(info);
  // Compared this way round, a huge count cannot overflow.
  if (count < 0 || static_cast<size_t>(count) > bytes.size() * 8 / width) {
    throw StreamError(std::to_string(count) + " values of " + std::to_string(width) +
                      " bits do not fit in " + std::to_string(bytes.size()) + " bytes");
  }
  py::array_t<int64_t> values(count);
  UnpackBits(reinterpret_cast<const uint8_t*>(bytes.data()), count, width, values.mutable_data());
  return values;
}

py::array PyQuantizedCdf(const Array<float>& pdf, bool fit_total) {
  if (pdf.ndim() < 1) throw std::invalid_argument("quantized_cdf: pdf must be [..., N]");
  const int64_t size = pdf.shape(pdf.ndim() - 1);
  py::array_t<int32_t> cdf(Shape(pdf.shape(), pdf.shape() + pdf.ndim()));
  for (int64_t row = 0; row < (size == 0 ? 0 : pdf.size() / size); ++row) {
    int32_t* out = cdf.mutable_data() + row * size;
    QuantizedCdf(pdf.data() + row * size, size, out);
    if (fit_total) FitTotal(size, out);
  }
  return cdf;
}

void CheckRows(const Array<int32_t>& cdf) {
  if (cdf.ndim() != 2 || cdf.shape(1) < 1) {
    throw std::invalid_argument("cdf must be [symbols, N >= 1] int32");
  }
}

void Push(ArithmeticEncoder& encoder, const Array<int64_t>& symbols, const Array<int32_t>& cdf) {
  CheckRows(cdf);
  if (symbols.ndim() != 1 || symbols.shape(0) != cdf.shape(0)) {
    throw std::invalid_argument("symbols must be [" + std::to_string(cdf.shape(0)) +
                                "], one for each row of cdf");
  }
  for (py::ssize_t i = 0; i < cdf.shape(0); ++i) {
    encoder.Push(symbols.at(i), cdf.data(i, 0), cdf.shape(1));
  }
}

py::array Pull(ArithmeticDecoder& decoder, const Array<int32_t>& cdf) {
  CheckRows(cdf);
  py::array_t<int64_t> symbols(cdf.shape(0));
  for (py::ssize_t i = 0; i < cdf.shape(0); ++i) {
    symbols.mutable_at(i) = decoder.Pull(cdf.data(i, 0), cdf.shape(1));
  }
  return symbols;
}

int64_t CountKeys(const py::dict& weights, const char* prefix, const char* suffix) {
  int64_t count = 0;
  while (weights.contains(prefix + std::to_string(count) + suffix)) ++count;
  return count;
}

// The weight named `key`, kept alive by `kept`.
py::array GetArray(const py::dict& weights, const std::string& key, std::vector<py::array>* kept) {
  if (!weights.contains(key)) throw std::invalid_argument("EntropyModel: no weight " + key);
  auto array = Array<float>::ensure(weights[key.c_str()]);
  if (!array) throw py::error_already_set();
  kept->push_back(array);
  return array;
}

std::unique_ptr<EntropyModel> MakeModel(const py::dict& weights, int64_t heads,
                                        int64_t past_frames) {
  std::vector<py::array> kept;
  const py::array table = GetArray(weights, "emb.0.weight", &kept);
  const py::array hidden = GetArray(weights, "transformer.layers.0.linear1.bias", &kept);
  if (table.ndim() != 2 || hidden.ndim() != 1) {
    throw std::invalid_argument("EntropyModel: weights of the wrong rank");
  }
  const EntropyModelShape shape = {CountKeys(weights, "emb.", ".weight"),
                                   table.shape(0) - 1,
                                   table.shape(1),
                                   CountKeys(weights, "transformer.layers.", ".linear1.bias"),
                                   heads,
                                   hidden.shape(0),
                                   past_frames};
  return std::make_unique<EntropyModel>(
      shape, [&](const std::string& key, std::initializer_list<int64_t> expected) {
        const py::array array = GetArray(weights, key, &kept);
        if (!std::equal(expected.begin(), expected.end(), array.shape(),
                        array.shape() + array.ndim())) {
          std::ostringstream sizes;
          for (const int64_t size : expected) sizes << (sizes.tellp() > 0 ? ", " : "") << size;
          throw std::invalid_argument("EntropyModel: " + key + " must be [" + sizes.str() + "]");
        }
        return static_cast<const float*>(array.data());
      });
}

py::array Step(EntropySession& session, const std::optional<Array<int64_t>>& previous) {
  const EntropyModelShape& shape = session.model().shape;
  if (previous) {
    if (previous->ndim() != 1 || previous->shape(0) != session.codebooks()) {
      throw std::invalid_argument("previous codes must be [" + std::to_string(session.codebooks()) +
                                  "]");
    }
    for (py::ssize_t k = 0; k < previous->size(); ++k) {
      if (previous->at(k) < 0 || previous->at(k) >= shape.codewords) {
        throw std::invalid_argument("codes must be in [0, " + std::to_string(shape.codewords - 1) +
                                    "], got " + std::to_string(previous->at(k)));
      }
    }
  }
  py::array_t<float> out({session.codebooks(), shape.codewords});
  const int64_t* codes = previous ? previous->data() : nullptr;
  float* probabilities = out.mutable_data();
  {
    py::gil_scoped_release release;
    session.Step(codes, probabilities);
  }
  return out;
}

py::dict PyCpuReport() {
  const CpuReport report = ReportCpu();
  py::dict result;
  result["brand"] = report.brand;
  for (const auto& [name, usable] : report.features) result[name.c_str()] = usable;
  return result;
}

}  // namespace

PYBIND11_MODULE(_host, m) {
  py::register_exception_translator([](std::exception_ptr pending) {
    try {
      if (pending) std::rethrow_exception(pending);
    } catch (const StreamError& error) {
      py::set_error(py::module_::import("fastcodec.errors").attr("FormatError"), error.what());
    }
  });

  m.def("pack_bits", &PyPackBits, py::arg("values"), py::arg("width"));
  m.def("unpack_bits", &PyUnpackBits, py::arg("data"), py::arg("width"), py::arg("count"));
  m.def("quantized_cdf", &PyQuantizedCdf, py::arg("pdf"), py::kw_only(),
        py::arg("fit_total") = false);
  m.def("cpu_report", &PyCpuReport);

  py::class_<ArithmeticEncoder>(m, "ArithmeticEncoder")
      .def(py::init<>())
      .def("push", &Push, py::arg("symbols"), py::arg("cdf"))
      .def("finish", [](ArithmeticEncoder& self) { return py::bytes(self.Finish()); });

  py::class_<ArithmeticDecoder>(m, "ArithmeticDecoder")
      .def(py::init([](const py::buffer& data) {
             const py::buffer_info info = data.request();
             return ArithmeticDecoder(std::string(View(info)));
           }),
           py::arg("data"))
      .def("pull", &Pull, py::arg("cdf"))
      .def_property_readonly("bytes_read", &ArithmeticDecoder::bytes_read);

  py::class_<EntropySession>(m, "EntropySession")
      .def("__call__", &Step, py::arg("previous").none(true));

  py::class_<EntropyModel>(m, "EntropyModel")
      .def(py::init(&MakeModel), py::arg("weights"), py::arg("heads"), py::arg("past_frames"))
      .def_property_readonly("name", [](const EntropyModel&) { return EntropyModel::kName; })
      .def_property_readonly("n_codebooks",
                             [](const EntropyModel& self) { return self.shape.codebooks; })
      .def(
          "start",
          [](const EntropyModel& self, int64_t n_codebooks) {
            return std::make_unique<EntropySession>(self, n_codebooks);
          },
          py::arg("n_codebooks"), py::keep_alive<0, 1>());
}

}  // namespace fastcodec
