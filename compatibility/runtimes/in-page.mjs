import Anthropic from '@anthropic-ai/sdk'
import * as fieldstream from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { report } from './scenario.mjs'

// The SDK asks whoever uses it in a page whether the key may be seen there.
const createProvider = ({ model, ...options }) =>
  anthropic({ model, client: new Anthropic({ ...options, dangerouslyAllowBrowser: true }) })

globalThis.result = report({ fieldstream, createProvider, serverURL: location.origin })
