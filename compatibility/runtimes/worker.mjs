import Anthropic from '@anthropic-ai/sdk'
import * as fieldstream from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import { report } from './scenario.mjs'

const createProvider = ({ model, ...options }) => anthropic({ model, client: new Anthropic(options) })

export default {
  async fetch(request, env) {
    if (new URL(request.url).pathname === '/scenario')
      return new Response(await report({ fieldstream, createProvider, serverURL: env.SERVER_URL }))
    const fetch = replayFetch(simulate('An answer that a worker streams.', { delayMs: 5 }))
    const client = new fieldstream.StreamingLLMClient({
      provider: anthropic({ model: 'm', client: new Anthropic({ apiKey: 'none', fetch }) }),
    })
    return new Response(client.stream({ messages: [{ role: 'user', content: 'Hello' }] }).toReadableStream())
  },
}
