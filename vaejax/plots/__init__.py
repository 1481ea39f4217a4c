"""Pictures of a run and of its model: every function returns a matplotlib Figure."""

from vaejax.plots.graphs import graph as graph
from vaejax.plots.history import curves as curves
from vaejax.plots.images import BLUE as BLUE
from vaejax.plots.images import GREY as GREY
from vaejax.plots.images import INK as INK
from vaejax.plots.images import ORANGE as ORANGE
from vaejax.plots.images import image_grid as image_grid
from vaejax.plots.images import prior_image as prior_image
from vaejax.plots.images import reconstructions as reconstructions
from vaejax.plots.images import samples as samples
from vaejax.plots.images import tile as tile
from vaejax.plots.latents import latent as latent
from vaejax.plots.latents import priors as priors
