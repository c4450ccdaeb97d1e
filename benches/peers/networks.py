"""The two networks of an extraction in full size, with random weights, from diffusers' classes.

Nothing is downloaded: the configs of Stable Diffusion 1.5 and 2.1 are written out here.
"""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

TOKENS = 77
TIMESTEP = 261
SCALING_FACTOR = 0.18215

# The up block after which a tap is taken; what lies behind is never built.
TAPS = {"us3": 0, "us6": 1, "us9": 2}

_ATTENTION = {"sd15": (8, 768, False), "sd21": ((5, 10, 20, 20), 1024, True)}


def unet(model: str) -> UNet2DConditionModel:
    """The U-Net of `sd15` or `sd21`, whole."""
    heads, width, linear = _ATTENTION[model]
    return UNet2DConditionModel(
        sample_size=64,
        in_channels=4,
        out_channels=4,
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        attention_head_dim=heads,
        cross_attention_dim=width,
        use_linear_projection=linear,
    )


class Encoder(torch.nn.Module):
    """From an image `[1, 3, H, W]` to the mean of the scaled latent `[1, 4, H/8, W/8]`."""

    def __init__(self):
        super().__init__()
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv

    def forward(self, image):
        moments = self.quant_conv(self.encoder(image))
        return SCALING_FACTOR * moments[:, :4]


class UnetToTap(torch.nn.Module):
    """From a latent `[1, 4, h, w]` and prompt embeddings `[1, 77, d]` to the features of a tap.

    The sub-modules run in the order of the network and end with the tap's.
    """

    def __init__(self, model: str, tap: str):
        super().__init__()
        self.unet = unet(model)
        del self.unet.conv_norm_out, self.unet.conv_out
        del self.unet.up_blocks[TAPS[tap] + 1 :]
        self.register_buffer("timestep", torch.tensor([TIMESTEP]), persistent=False)

    def forward(self, latent, text):
        unet = self.unet
        time = unet.time_proj(self.timestep).to(latent.dtype)
        time = unet.time_embedding(time)

        def conditions(block):
            """What this block takes beside its input."""
            cross = getattr(block, "has_cross_attention", False)
            return {"temb": time, "encoder_hidden_states": text} if cross else {"temb": time}

        value = unet.conv_in(latent)
        skips = [value]
        for block in unet.down_blocks:
            value, outputs = block(value, **conditions(block))
            skips += outputs
        value = unet.mid_block(value, **conditions(unet.mid_block))
        for block in unet.up_blocks:
            count = len(block.resnets)
            skips, taken = skips[:-count], tuple(skips[-count:])
            value = block(value, res_hidden_states_tuple=taken, **conditions(block))
        return value


def parts(model: str, tap: str, width: int, height: int) -> dict:
    """By stage: the module, and its inputs by name. The same weights and inputs at each call."""
    torch.manual_seed(0)
    encoder, network = Encoder().eval(), UnetToTap(model, tap).eval()
    embedding = _ATTENTION[model][1]
    return {
        "encoder": (encoder, {"image": torch.rand(1, 3, height, width) * 2 - 1}),
        "unet": (
            network,
            {
                "latent": torch.randn(1, 4, height // 8, width // 8),
                "text": torch.randn(1, TOKENS, embedding),
            },
        ),
    }
