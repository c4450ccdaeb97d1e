//! The kernels' gradients against PyTorch's, on the golden blocks (see `golden/README.md`): every
//! instruction set that this machine has.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use cleandift::checkpoint::Weights;
use cleandift::graph::Parameters;
use cleandift_kernels::{Adam, Attention, Convolution, Gate, Kernels, Padding, Shape};
use common::{golden, relative_error, tensors, values, wide};
use serde_json::Value;

/// The largest relative error (2-norm) that is rounding, as in the kernels' own tests.
const ROUNDING: f64 = 5e-6;

/// A file of golden blocks, and what its metadata says of each case.
struct Blocks {
    tensors: Arc<Weights>,
    cases: BTreeMap<String, Value>,
}

impl Blocks {
    fn open(name: &str) -> Self {
        let tensors = tensors(&golden(&format!("blocks/{name}.safetensors")));
        let cases = serde_json::from_str(&tensors.metadata()["cases"]).unwrap();
        Self { tensors, cases }
    }

    /// Calls `check` for each case on each table.
    fn each(&self, mut check: impl FnMut(&Case<'_>, &Kernels)) {
        assert!(!self.cases.is_empty());
        for (name, settings) in &self.cases {
            for kernels in Kernels::all() {
                let case = Case {
                    tensors: &self.tensors,
                    name,
                    settings,
                    table: kernels.name(),
                };
                check(&case, kernels);
            }
        }
    }
}

struct Case<'a> {
    tensors: &'a Weights,
    name: &'a str,
    settings: &'a Value,
    table: &'static str,
}

impl Case<'_> {
    fn full_name(&self, tensor: &str) -> String {
        format!("{}/{tensor}", self.name)
    }

    fn shape(&self, tensor: &str) -> Vec<usize> {
        let name = self.full_name(tensor);
        self.tensors.shape(&name).unwrap().to_vec()
    }

    fn read(&self, tensor: &str) -> Vec<f32> {
        self.tensors.read(&self.full_name(tensor)).unwrap()
    }

    /// A map `[images, channels, rows, columns]` in the kernels' order, channels last.
    fn read_map(&self, tensor: &str) -> Vec<f32> {
        let [images, channels, rows, columns] = self.shape(tensor)[..] else {
            panic!("{tensor} is no map");
        };
        let from = self.read(tensor);
        let pixels = rows * columns;
        (0..images * pixels * channels)
            .map(|i| {
                let (pixel, channel) = (i / channels, i % channels);
                from[(pixel / pixels * channels + channel) * pixels + pixel % pixels]
            })
            .collect()
    }

    fn number(&self, setting: &str) -> Option<usize> {
        Some(self.settings.get(setting)?.as_u64()? as usize)
    }

    fn eps(&self) -> f32 {
        self.settings["eps"].as_f64().unwrap() as f32
    }

    fn flag(&self, setting: &str) -> bool {
        self.settings[setting].as_bool().unwrap()
    }

    /// Compares a gradient with the golden one, `expected` in the kernels' order.
    fn close(&self, what: &str, found: &[f32], expected: &[f32]) {
        let error = relative_error(&wide(found), &wide(expected));
        assert!(
            error < ROUNDING,
            "{} {what} on {}: {error:e}",
            self.name,
            self.table
        );
    }
}

#[test]
fn of_convolutions() {
    Blocks::open("conv").each(|case, kernels| {
        let [images, inputs, height, width] = case.shape("in.x")[..] else {
            panic!("no map");
        };
        let [outputs, _, kernel, _] = case.shape("param.w")[..] else {
            panic!("no kernel");
        };
        // The auto-encoder's down-sampler pads on the right and below, and says no more.
        let (stride, padding) = match case.number("stride") {
            Some(stride) => (stride, Padding::all(case.number("padding").unwrap())),
            None => (
                2,
                Padding {
                    right: 1,
                    bottom: 1,
                    ..Padding::default()
                },
            ),
        };
        let geometry = Convolution {
            images,
            height,
            width,
            stride,
            padding,
        };
        let sides = [outputs, inputs, kernel];
        let (x, dy, weight) = (
            case.read_map("in.x"),
            case.read_map("dy.y"),
            case.read("param.w"),
        );
        let mut dx = vec![f32::NAN; x.len()];
        kernels.convolution_input_gradient(&dy, &geometry, &weight, sides, &mut dx);
        case.close("dx", &dx, &case.read_map("grad.in.x"));
        let mut dw = vec![f32::NAN; weight.len()];
        kernels.convolution_weight_gradient(&x, &dy, &geometry, sides, &mut dw);
        case.close("dw", &dw, &case.read("grad.param.w"));
        let mut db = vec![f32::NAN; outputs];
        kernels.row_sums(&dy, outputs, &mut db);
        case.close("db", &db, &case.read("grad.param.b"));
    });
}

#[test]
fn of_a_linear_layer() {
    Blocks::open("linear").each(|case, kernels| {
        let (x, dy, weight) = (case.read("in.x"), case.read("dy.y"), case.read("param.w"));
        let [outputs, inputs] = case.shape("param.w")[..] else {
            panic!("no matrix");
        };
        let mut dx = vec![f32::NAN; x.len()];
        kernels.product_input_gradient(&dy, &weight, outputs, inputs, &mut dx);
        case.close("dx", &dx, &case.read("grad.in.x"));
        let mut dw = vec![f32::NAN; weight.len()];
        kernels.product_weight_gradient(&x, &dy, inputs, outputs, &mut dw);
        case.close("dw", &dw, &case.read("grad.param.w"));
        let mut db = vec![f32::NAN; outputs];
        kernels.row_sums(&dy, outputs, &mut db);
        case.close("db", &db, &case.read("grad.param.b"));
    });
}

/// A linear layer, then its GEGLU; the gradient goes back through both.
#[test]
fn of_a_gated_product() {
    let mut blocks = Blocks::open("geglu");
    blocks.cases.retain(|name, _| name == "geglu");
    blocks.each(|case, kernels| {
        let (x, dy, weight) = (case.read("in.x"), case.read("dy.y"), case.read("param.w"));
        let [outputs, inputs] = case.shape("param.w")[..] else {
            panic!("no matrix");
        };
        let mut both = vec![f32::NAN; x.len() / inputs * outputs];
        let packed = kernels.pack_linear(&weight, outputs, inputs);
        let bias = case.read("param.b");
        kernels.product(&x, &packed, Some(bias.as_slice()), &mut both);
        let mut gradient = vec![f32::NAN; both.len()];
        kernels.gated_gradient(&both, outputs / 2, Gate::Gelu, &dy, &mut gradient);
        let mut dx = vec![f32::NAN; x.len()];
        kernels.product_input_gradient(&gradient, &weight, outputs, inputs, &mut dx);
        case.close("dx", &dx, &case.read("grad.in.x"));
        let mut dw = vec![f32::NAN; weight.len()];
        kernels.product_weight_gradient(&x, &gradient, inputs, outputs, &mut dw);
        case.close("dw", &dw, &case.read("grad.param.w"));
        let mut db = vec![f32::NAN; outputs];
        kernels.row_sums(&gradient, outputs, &mut db);
        case.close("db", &db, &case.read("grad.param.b"));
    });
}

#[test]
fn of_activations() {
    let mut blocks = Blocks::open("activation");
    blocks.cases.retain(|name, _| name != "softmax");
    blocks.each(|case, kernels| {
        let run = match case.name {
            "silu" => Kernels::silu_gradient,
            "gelu" => Kernels::gelu_gradient,
            "quick_gelu" => Kernels::quick_gelu_gradient,
            other => panic!("{other} is unknown"),
        };
        let (x, dy) = (case.read("in.x"), case.read("dy.y"));
        let mut dx = vec![f32::NAN; x.len()];
        run(kernels, &x, &dy, &mut dx);
        case.close("dx", &dx, &case.read("grad.in.x"));
    });
}

#[test]
fn of_norms() {
    Blocks::open("groupnorm").each(|case, kernels| {
        let [images, channels, rows, columns] = case.shape("in.x")[..] else {
            panic!("no map");
        };
        let shape = Shape {
            images,
            pixels: rows * columns,
            channels,
        };
        let (x, dy) = (case.read_map("in.x"), case.read_map("dy.y"));
        let (weight, bias) = (case.read("param.w"), case.read("param.b"));
        let mut dx = vec![f32::NAN; x.len()];
        let [mut dw, mut db] = [(); 2].map(|_| vec![f32::NAN; channels]);
        kernels.group_norm_gradient(
            &x,
            shape,
            case.number("groups").unwrap(),
            case.eps(),
            &weight,
            &bias,
            case.flag("silu"),
            &dy,
            &mut dx,
            &mut dw,
            &mut db,
        );
        case.close("dx", &dx, &case.read_map("grad.in.x"));
        case.close("dw", &dw, &case.read("grad.param.w"));
        case.close("db", &db, &case.read("grad.param.b"));
    });
    Blocks::open("layernorm").each(|case, kernels| {
        let (x, dy, weight) = (case.read("in.x"), case.read("dy.y"), case.read("param.w"));
        let mut dx = vec![f32::NAN; x.len()];
        let [mut dw, mut db] = [(); 2].map(|_| vec![f32::NAN; weight.len()]);
        kernels.layer_norm_gradient(&x, &weight, case.eps(), &dy, &mut dx, &mut dw, &mut db);
        case.close("dx", &dx, &case.read("grad.in.x"));
        case.close("dw", &dw, &case.read("grad.param.w"));
        case.close("db", &db, &case.read("grad.param.b"));
    });
}

#[test]
fn of_attention() {
    Blocks::open("attention").each(|case, kernels| {
        let [images, queries, channels] = case.shape("in.q")[..] else {
            panic!("no tokens");
        };
        let heads = case.number("heads").unwrap();
        let shape = Attention {
            images,
            queries,
            keys: case.shape("in.k")[1],
            heads,
            head_size: channels / heads,
            causal: case.flag("causal"),
        };
        let [q, k, v] = ["in.q", "in.k", "in.v"].map(|name| case.read(name));
        let dout = case.read("dy.y");
        let [mut dq, mut dk, mut dv] = [&q, &k, &v].map(|x| vec![f32::NAN; x.len()]);
        kernels.attention_gradient(&shape, &q, &k, &v, &dout, &mut dq, &mut dk, &mut dv);
        case.close("dq", &dq, &case.read("grad.in.q"));
        case.close("dk", &dk, &case.read("grad.in.k"));
        case.close("dv", &dv, &case.read("grad.in.v"));
    });
}

/// Four steps. A parameter of size 1 moves by some 1e-5, a hundred and more units in its last
/// place, so both sides' roundings show in the parameters themselves, at most one unit a step.
#[test]
fn of_adam() {
    Blocks::open("adam").each(|case, kernels| {
        let mut parameters = case.read("in.p0");
        let gradients = case.read("in.grads");
        let [mut first, mut second] = [(); 2].map(|_| vec![0.0; parameters.len()]);
        let betas = [0, 1].map(|i| case.settings["betas"][i].as_f64().unwrap());
        for (step, gradients) in (1..).zip(gradients.chunks(parameters.len())) {
            let adam = Adam {
                rate: case.settings["lr"].as_f64().unwrap(),
                betas,
                eps: case.settings["eps"].as_f64().unwrap(),
                step,
            };
            kernels.adam(&mut parameters, gradients, &mut first, &mut second, &adam);
            let expected = values(case.tensors, &case.full_name(&format!("out.p{step}")));
            for (found, expected) in parameters.iter().zip(expected) {
                let unit = f64::from(f32::EPSILON) * expected.abs().max(0.5);
                let error = (f64::from(*found) - expected).abs();
                assert!(
                    error <= f64::from(step) * unit,
                    "step {step} on {}: {found} instead of {expected}",
                    case.table
                );
            }
        }
    });
}
